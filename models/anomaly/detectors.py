"""Fitted anomaly detectors by name, kept on disk."""

from __future__ import annotations

import builtins
import dataclasses
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from models.anomaly.backends_table import AUTO, backend_infos, backend_name
from models.anomaly.calibration import check_contamination
from models.anomaly.fitted import FittedDetector, restored, stored_info
from models.anomaly.references import find, split
from models.anomaly.rethreshold import edited
from models.anomaly.scoring import check_normalization, score_together
from models.anomaly.workers import Fitted, InProcess, Worker
from models.errors import (
    FitCancelledError,
    InvalidInputError,
    ModelError,
    ModelLoadError,
    ModelNotFoundError,
    StorageError,
)
from models.stores.artefact_cache import ArtefactCache
from models.stores.artefact_index import Pointer
from models.stores.artefacts import READ_ATTEMPTS, ArtefactStore
from models.stores.fitting import FitTurns, check_name
from models.types.anomaly import (
    AnomalyScoreRequest,
    AnomalyScores,
    BackendInfo,
    DetectorInfo,
    FitRequest,
    ThresholdRequest,
    UploadedTable,
)


class Detectors:
    """Detectors on the artefacts under `root`, which replicas may share.

    Any instance sees what another has stored, at once. The last `keep_versions` of a name stay.
    `max_cached_bytes` bounds the loaded detectors, measured by their files, `cache_ttl_s` for how
    long one stays that nobody asks for; `max_fits` bounds the fits at a time. `worker` is where
    they run. Raises ModelLoadError when there is no usable root.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        n_threads: int,
        worker: Worker | None = None,
        keep_versions: int = 1,
        max_cached_bytes: int = 256 * 2**20,
        cache_ttl_s: float = 3600.0,
        max_fits: int = 4,
    ) -> None:
        try:
            self._store = ArtefactStore(root, keep_versions)
        except StorageError as error:
            raise ModelLoadError(error.message) from error
        self._n_threads = n_threads
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="detectors")
        self._cache: ArtefactCache[FittedDetector] = ArtefactCache(max_cached_bytes, cache_ttl_s)
        self._fits = FitTurns(max_fits)
        self._worker = worker or InProcess()

    @property
    def store(self) -> ArtefactStore:
        return self._store

    @property
    def memory_bytes(self) -> int:
        return self._cache.size_bytes

    @property
    def alive(self) -> bool:
        """Always: it has no thread of its own."""
        return True

    def close(self) -> None:
        self._worker.close()
        self._threads.shutdown()
        self._cache.clear()

    def fit(
        self,
        request: FitRequest,
        cancelled: threading.Event | None = None,
        wait: bool = False,
    ) -> DetectorInfo:
        """Nothing is stored once `cancelled` is set.

        Raises InvalidInputError, StorageError, FitCancelledError, FitCrashedError,
        DeadlineExceededError; OverloadedError when other fits run, unless it is to `wait` for them.
        """
        check_name(request.name)
        _check_fit(request)
        cancelled = cancelled or threading.Event()
        with self._fits.turn(wait):
            if cancelled.is_set():
                raise FitCancelledError("The fit has been cancelled.")
            fitted = self._worker.fit(request, cancelled)
        return self.publish(request.name, fitted)

    def publish(self, name: str, fitted: Fitted) -> DetectorInfo:
        """Store a new current version. Raises StorageError or InvalidInputError."""
        info: DetectorInfo = dataclasses.replace(
            fitted.info,
            created=int(time.time()),
            size_bytes=sum(map(len, fitted.files.values())),
            fit_seconds=fitted.seconds,
        )
        manifest = {**fitted.manifest, "info": dataclasses.asdict(info)}
        pointer = self._store.publish(name, manifest, fitted.files)
        return dataclasses.replace(info, version=pointer.version)

    def score(
        self, requests: Sequence[AnomalyScoreRequest]
    ) -> builtins.list[AnomalyScores | ModelError]:
        """All rows for one detector are one vectorised call, by one version of it."""
        results: dict[int, AnomalyScores | ModelError] = {}
        by_name: dict[str, list[int]] = defaultdict(list)
        read = [self._read(request) for request in requests]
        for index, request in enumerate(read):
            if isinstance(request, ModelError):
                results[index] = request
            else:
                by_name[request.name].append(index)
        for name, indices in by_name.items():
            mine = [read[index] for index in indices]
            answers = self._score_one(name, [r for r in mine if not isinstance(r, ModelError)])
            results |= dict(zip(indices, answers, strict=True))
        return [results[index] for index in range(len(requests))]

    def load(self, name: str) -> DetectorInfo:
        """Have a detector in memory. Raises ModelNotFoundError or StorageError."""
        return self._detector(name).info

    def list(self) -> builtins.list[DetectorInfo]:
        """Every name's current version."""
        infos = []
        for pointer, manifest in self._store.manifests():
            try:
                infos.append(stored_info(pointer.version, manifest))
            except StorageError:
                continue
        return sorted(infos, key=lambda info: info.name)

    def get(self, name: str) -> DetectorInfo:
        """Raises ModelNotFoundError or StorageError."""
        stored, version, _ = find(self._store, name)
        return _info(stored, *self._store.manifest(stored, version))

    def versions(self, name: str) -> builtins.list[DetectorInfo]:
        """All that are kept, the current one first. Raises ModelNotFoundError or StorageError."""
        stored, _, _ = find(self._store, name)
        return [_info(stored, *version) for version in self._store.versions(stored)]

    def aliases(self) -> dict[str, str]:
        """Alias -> what it stands for."""
        return self._store.aliases()

    def set_alias(self, alias: str, target: str) -> None:
        """Let `alias` stand for a detector, or for one version of it.

        Raises InvalidInputError, ModelNotFoundError or StorageError.
        """
        check_name(alias)
        stored, version, _ = find(self._store, target)
        self._store.set_alias(alias, stored if version is None else f"{stored}@{version}")

    def rename(self, old: str, new: str) -> DetectorInfo:
        """Raises InvalidInputError, ModelNotFoundError or StorageError."""
        check_name(new)
        stored, version, _ = find(self._store, old)
        if version is not None:
            raise InvalidInputError("A version cannot be renamed, only a detector.", "model")

        def edit(manifest: Mapping[str, object]) -> Mapping[str, object]:
            info: Any = manifest["info"]
            return {**manifest, "info": {**info, "name": new}}

        self._store.rename(stored, new, edit)
        return self.get(new)

    def set_threshold(self, request: ThresholdRequest) -> DetectorInfo:
        """A new version that judges the same scores by another threshold.

        Raises InvalidInputError, ModelNotFoundError or StorageError.
        """
        stored, version, _ = find(self._store, request.name)
        if version is not None:
            raise InvalidInputError("A version is never changed, only a detector.", "model")
        pointer = self._store.amend(stored, partial(edited, request))
        return _info(stored, *self._store.manifest(stored, pointer.version))

    def delete(self, name: str) -> None:
        """All versions of a detector, or the one that is named, or an alias.

        Raises ModelNotFoundError or StorageError.
        """
        if self._store.alias_of(name) is not None:
            self._store.delete(name)
            return
        stored, version, pointer = find(self._store, name)
        latest = version is None and split(name)[0] != name
        self._store.delete(stored, pointer.version if latest else version)

    def backends(self) -> builtins.list[BackendInfo]:
        return [*backend_infos()]

    def _detector(self, name: str) -> FittedDetector:
        """That version, from the cache when it is there."""
        for _ in range(READ_ATTEMPTS):
            stored, _, pointer = find(self._store, name)
            try:
                return self._cache.get(pointer.folder, partial(self._load, stored, pointer.version))
            except ModelNotFoundError:  # that version was replaced just now
                continue
        raise StorageError("The detector is replaced faster than it can be read.")

    def _load(self, name: str, version: int) -> FittedDetector:
        artefact = self._store.read(name, version)
        _info(name, artefact.pointer, artefact.manifest)
        return restored(artefact)

    def _read(self, request: AnomalyScoreRequest) -> AnomalyScoreRequest | ModelError:
        """The request, with its file as a table."""
        if not isinstance(request.table, UploadedTable):
            return request
        try:
            return dataclasses.replace(request, table=self._worker.read(request.table))
        except ModelError as error:
            return error

    def _score_one(
        self, name: str, requests: Sequence[AnomalyScoreRequest]
    ) -> Sequence[AnomalyScores | ModelError]:
        try:
            detector = self._detector(name)
        except ModelError as error:
            return [error] * len(requests)
        return score_together(detector, requests, self._threads, self._n_threads)


def _check_fit(request: FitRequest) -> None:
    """What can be refused without a look at the rows. Raises InvalidInputError."""
    if request.backend != AUTO:
        backend_name(request.backend)
    check_contamination(request.contamination)
    check_normalization(request.normalization)


def _info(name: str, pointer: Pointer, manifest: Mapping[str, object]) -> DetectorInfo:
    info = stored_info(pointer.version, manifest)
    if info.name != name:
        raise StorageError("The stored detector has another name.")
    return info
