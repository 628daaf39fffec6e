"""Fitted anomaly detectors by name: the `DetectorLibrary` of scikit-learn and numpy detectors."""

from __future__ import annotations

import builtins
import dataclasses
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np

from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix
from models.anomaly.fitted import FittedDetector, restored, stored_info
from models.artefact_cache import ArtefactCache
from models.artefacts import Artefact, ArtefactStore, Pointer
from models.errors import InvalidInputError, ModelError, ModelLoadError, StorageError
from models.fitting import FitTurns, check_name
from models.types import (
    AnomalyScoreRequest,
    AnomalyScores,
    Contribution,
    DetectorInfo,
    FitRequest,
    ScoreNormalization,
)

NORMALIZATIONS: tuple[ScoreNormalization, ...] = get_args(ScoreNormalization)


class Detectors:
    """A `DetectorLibrary` on the artefacts under `root`, which replicas may share.

    Any instance sees what another has stored, at once. `max_cached_bytes` bounds the loaded
    detectors, measured by their files; `max_fits` bounds the fits at a time, so that they leave
    threads for scoring. Raises ModelLoadError when there is no usable root.
    """

    def __init__(
        self,
        *,
        root: Path,
        n_threads: int,
        max_cached_bytes: int = 256 * 2**20,
        max_fits: int = 4,
    ) -> None:
        try:
            self._store = ArtefactStore(root)
        except StorageError as error:
            raise ModelLoadError(error.message) from error
        self._n_threads = n_threads
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="detectors")
        self._cache: ArtefactCache[FittedDetector] = ArtefactCache(max_cached_bytes)
        self._fits = FitTurns(max_fits)

    @property
    def memory_bytes(self) -> int:
        return self._cache.size_bytes

    @property
    def alive(self) -> bool:
        """Always: it has no thread of its own."""
        return True

    def close(self) -> None:
        self._threads.shutdown()
        self._cache.clear()

    def fit(self, request: FitRequest) -> DetectorInfo:
        """Raises InvalidInputError, StorageError, or OverloadedError when other fits run."""
        _check_fit(request)
        with self._fits.turn():
            start = time.perf_counter()
            detector = FittedDetector.fit(request)
            seconds = time.perf_counter() - start
            files = detector.files()
        info = dataclasses.replace(
            detector.info,
            created=int(time.time()),
            size_bytes=sum(map(len, files.values())),
            fit_seconds=seconds,
        )
        stored = dataclasses.replace(detector, info=info)
        pointer = self._store.publish(request.name, stored.manifest(), files)
        return dataclasses.replace(info, version=pointer.version)

    def score(
        self, requests: Sequence[AnomalyScoreRequest]
    ) -> builtins.list[AnomalyScores | ModelError]:
        """All rows for one detector are one vectorised call, by one version of it."""
        by_name: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            by_name[request.name].append(index)
        results: dict[int, AnomalyScores | ModelError] = {}
        for name, indices in by_name.items():
            answers = self._score_one(name, [requests[index] for index in indices])
            results |= dict(zip(indices, answers, strict=True))
        return [results[index] for index in range(len(requests))]

    def list(self) -> builtins.list[DetectorInfo]:
        infos = []
        for pointer, manifest in self._store.manifests():
            try:
                infos.append(stored_info(pointer.version, manifest))
            except StorageError:
                continue
        return sorted(infos, key=lambda info: info.name)

    def get(self, name: str) -> DetectorInfo:
        """Raises ModelNotFoundError or StorageError."""
        return _info(name, *self._store.manifest(name))

    def delete(self, name: str) -> None:
        """Raises ModelNotFoundError or StorageError."""
        self._store.delete(name)

    def _detector(self, name: str) -> FittedDetector:
        """The current version, from the cache when it is there."""
        pointer = self._store.pointer(name)
        return self._cache.get(pointer.folder, lambda: _restored(name, self._store.read(name)))

    def _score_one(
        self, name: str, requests: Sequence[AnomalyScoreRequest]
    ) -> Sequence[AnomalyScores | ModelError]:
        try:
            detector = self._detector(name)
        except ModelError as error:
            return [error] * len(requests)
        tables = [_encoded(detector, request) for request in requests]
        matrices = [table for table in tables if not isinstance(table, ModelError)]
        try:
            parts = iter(self._raw(detector, matrices))
        except ModelError as error:
            return [table if isinstance(table, ModelError) else error for table in tables]
        return [
            table
            if isinstance(table, ModelError)
            else _scores(detector, request, table, next(parts))
            for table, request in zip(tables, requests, strict=True)
        ]

    def _raw(self, detector: FittedDetector, tables: Sequence[Matrix]) -> Sequence[Scores]:
        if not tables:
            return []
        rows = tables[0] if len(tables) == 1 else np.concatenate(tables)
        raw = detector.raw_scores(rows, self._threads, self._n_threads)
        return np.split(raw, np.cumsum([len(table) for table in tables])[:-1])


def _check_fit(request: FitRequest) -> None:
    check_name(request.name)
    if not 0 < request.contamination <= 0.5:
        raise InvalidInputError("'contamination' must be above 0 and at most 0.5.", "contamination")
    _check_normalization(request.normalization)


def _check_normalization(normalization: str | None) -> None:
    if normalization is not None and normalization not in NORMALIZATIONS:
        names = ", ".join(NORMALIZATIONS)
        raise InvalidInputError(f"'normalization' must be one of {names}.", "normalization")


def _info(name: str, pointer: Pointer, manifest: Mapping[str, object]) -> DetectorInfo:
    info = stored_info(pointer.version, manifest)
    if info.name != name:
        raise StorageError("The stored detector has another name.")
    return info


def _restored(name: str, artefact: Artefact) -> FittedDetector:
    _info(name, artefact.pointer, artefact.manifest)
    return restored(artefact)


def _encoded(detector: FittedDetector, request: AnomalyScoreRequest) -> Matrix | ModelError:
    """The request's rows as features, or what is wrong with it."""
    try:
        detector.check_backend(request.backend)
        _check_normalization(request.normalization)
        if request.threshold is not None and not np.isfinite(request.threshold):
            raise InvalidInputError("'threshold' must be a finite number.", "threshold")
        return detector.encoder.encode(request.table)
    except ModelError as error:
        return error


def _scores(
    detector: FittedDetector, request: AnomalyScoreRequest, rows: Matrix, raw: Scores
) -> AnomalyScores | ModelError:
    """The learned threshold is applied to raw scores: normalised ones may be equal to it."""
    normalization = request.normalization or detector.info.normalization
    scores = detector.calibration.normalized(raw, normalization)
    if request.threshold is None:
        threshold = detector.calibration.threshold_in(normalization)
        anomalous = raw > detector.calibration.threshold
    else:
        threshold = request.threshold
        anomalous = scores > threshold
    contributions: tuple[tuple[Contribution, ...], ...] = ()
    if request.explain:
        try:
            contributions = detector.explained(rows, request.explain)
        except ModelError as error:
            return error
    return AnomalyScores(
        scores=tuple(scores.tolist()),
        raw=tuple(raw.tolist()),
        threshold=threshold,
        version=detector.info.version,
        anomalous=tuple(anomalous.tolist()),
        contributions=contributions,
    )
