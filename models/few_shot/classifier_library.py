"""Classifiers that clients have fitted on embeddings, by name: a `ClassifierLibrary`."""

from __future__ import annotations

import builtins
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn

from models.errors import (
    InvalidInputError,
    ModelError,
    ModelLoadError,
    ModelNotFoundError,
    StorageError,
)
from models.few_shot.linear_head import LinearHead, fit_head, read_head
from models.stores.artefact_cache import ArtefactCache
from models.stores.artefacts import Artefact, ArtefactStore
from models.stores.fitting import FitTurns, check_name
from models.types.classification import (
    ClassifierFitRequest,
    ClassifierInfo,
    ClassifierRequest,
    LabelScores,
)

FORMAT = 1
HEAD_FILE = "head.safetensors"
LATEST = "-latest"
"""A name with this ending means the name without it, where it is no name of its own."""


@dataclass(frozen=True, slots=True)
class FittedClassifier:
    """Immutable, and safe to use from many threads."""

    info: ClassifierInfo
    head: LinearHead


class Classifiers:
    """A `ClassifierLibrary` on the artefacts under `root`, which replicas may share.

    Any instance sees what another has stored, at once. `max_cached_bytes` bounds the loaded
    classifiers. Raises ModelLoadError when there is no usable root.
    """

    def __init__(
        self, *, root: str | Path, max_cached_bytes: int = 256 * 2**20, max_fits: int = 2
    ) -> None:
        try:
            self._store = ArtefactStore(root)
        except StorageError as error:
            raise ModelLoadError(error.message) from error
        self._cache: ArtefactCache[FittedClassifier] = ArtefactCache(max_cached_bytes)
        self._fits = FitTurns(max_fits)

    @property
    def memory_bytes(self) -> int:
        return self._cache.size_bytes

    @property
    def alive(self) -> bool:
        """Always: it has no thread of its own."""
        return True

    def close(self) -> None:
        self._cache.clear()

    def fit(self, request: ClassifierFitRequest) -> ClassifierInfo:
        """Raises InvalidInputError, StorageError, or OverloadedError when other fits run."""
        check_name(request.name)
        dimensions = _dimensions(request)
        with self._fits.turn():
            start = time.perf_counter()
            head = fit_head(request.examples, request.descriptions)
            seconds = time.perf_counter() - start
        data = head.data()
        info = ClassifierInfo(
            name=request.name,
            version=0,
            created=int(time.time()),
            size_bytes=len(data),
            base_model=request.base_model,
            fingerprint=request.fingerprint,
            dimensions=dimensions,
            labels=head.labels,
            samples=len(request.examples.labels),
            head=head.kind,
            fit_seconds=seconds,
        )
        pointer = self._store.publish(request.name, _manifest(info), {HEAD_FILE: data})
        return dataclasses.replace(info, version=pointer.version)

    def predict(
        self, requests: Sequence[ClassifierRequest]
    ) -> builtins.list[LabelScores | ModelError]:
        """Each request is answered by one version, the current one."""
        return [self._predicted(request) for request in requests]

    def list(self) -> builtins.list[ClassifierInfo]:
        infos = []
        for pointer, manifest in self._store.manifests():
            try:
                infos.append(_info(pointer.version, manifest))
            except StorageError:
                continue
        return sorted(infos, key=lambda info: info.name)

    def get(self, name: str) -> ClassifierInfo:
        """Raises ModelNotFoundError or StorageError."""
        name = self._resolved(name)
        pointer, manifest = self._store.manifest(name)
        return _named(name, _info(pointer.version, manifest))

    def delete(self, name: str) -> None:
        """Raises ModelNotFoundError or StorageError."""
        self._store.delete(self._resolved(name))

    def _resolved(self, name: str) -> str:
        """The stored name that is meant. Raises ModelNotFoundError."""
        for candidate in dict.fromkeys((name, name.removesuffix(LATEST))):
            try:
                self._store.pointer(candidate)
            except ModelNotFoundError:
                continue
            return candidate
        raise ModelNotFoundError(name)

    def _predicted(self, request: ClassifierRequest) -> LabelScores | ModelError:
        try:
            fitted = self._fitted(self._resolved(request.name))
            _check_vectors(request, fitted.info)
        except ModelError as error:
            return error
        info = fitted.info
        return LabelScores(info.labels, fitted.head.scores(request.vectors), info.version)

    def _fitted(self, name: str) -> FittedClassifier:
        """The current version, from the cache when it is there."""
        pointer = self._store.pointer(name)
        return self._cache.get(pointer.folder, lambda: _restored(name, self._store.read(name)))


def _dimensions(request: ClassifierFitRequest) -> int:
    """Of all vectors. Raises InvalidInputError when they cannot be fitted to."""
    parts = [p.vectors for p in (request.examples, request.descriptions) if p.labels]
    if not parts:
        raise InvalidInputError("A fit needs examples or descriptions.", "training_data")
    if not all(np.isfinite(part).all() for part in parts):
        raise ModelError("The base model gives no finite vectors for these texts.")
    return int(parts[0].shape[1])


def _check_vectors(request: ClassifierRequest, info: ClassifierInfo) -> None:
    """Refuse vectors that are not from the weights that the classifier was fitted on."""
    dimensions = request.vectors.shape[1]
    if dimensions != info.dimensions:
        raise InvalidInputError(
            f"The classifier was fitted on vectors of {info.dimensions} numbers, but its base "
            f"model '{info.base_model}' now gives {dimensions}: fit it again.",
            "model",
        )
    if request.fingerprint != info.fingerprint:
        raise InvalidInputError(
            f"The base model '{info.base_model}' is not the one that the classifier was fitted "
            "on: fit it again.",
            "model",
        )


def _manifest(info: ClassifierInfo) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "info": dataclasses.asdict(info),
        "libraries": {"numpy": np.__version__, "scikit-learn": sklearn.__version__},
    }


def _info(version: int, manifest: Mapping[str, Any]) -> ClassifierInfo:
    """Raises StorageError for whatever we have not written."""
    try:
        if manifest["format"] != FORMAT:
            raise StorageError("The stored classifier has an unknown format.")
        fields = {**manifest["info"], "version": version}
        fields["labels"] = tuple(fields["labels"])
        return ClassifierInfo(**fields)
    except (KeyError, TypeError) as error:
        raise StorageError("The stored classifier cannot be read.") from error


def _named(name: str, info: ClassifierInfo) -> ClassifierInfo:
    if info.name != name:
        raise StorageError("The stored classifier has another name.")
    return info


def _restored(name: str, artefact: Artefact) -> FittedClassifier:
    info = _named(name, _info(artefact.pointer.version, artefact.manifest))
    data = artefact.files.get(HEAD_FILE, b"")
    head = read_head(info.head, info.labels, data, info.dimensions)
    return FittedClassifier(info, head)
