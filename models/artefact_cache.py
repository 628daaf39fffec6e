"""Loaded artefacts, bounded by bytes; the least recently used one leaves first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from models.errors import ModelError


class SizeInfo(Protocol):
    """`size_bytes` is that of the artefact's files."""

    @property
    def size_bytes(self) -> int: ...


class Sized(Protocol):
    """Whatever has been fitted and can be loaded."""

    @property
    def info(self) -> SizeInfo: ...


T = TypeVar("T", bound=Sized)


class ArtefactCache(Generic[T]):
    """Keyed by a version's own random name, so a refit or a deletion can never be missed.

    Threads that want one artefact wait for a single load; loads of others go on beside it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, T] = OrderedDict()
        self._loading: dict[str, Future[T]] = {}
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def get(self, key: str, load: Callable[[], T]) -> T:
        """The artefact, loaded if need be; raises what `load` raises."""
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
                return self._loaded[key]
            waiting = self._loading.get(key)
            if waiting is None:
                mine = self._loading[key] = Future()
        return waiting.result() if waiting else self._load(key, load, mine)

    def put(self, key: str, artefact: T) -> None:
        """Keep an artefact; one above the bound alone is not kept."""
        with self._lock:
            if key in self._loaded:
                return
            self._loaded[key] = artefact
            self._bytes += artefact.info.size_bytes
            while self._bytes > self._max_bytes:
                _, oldest = self._loaded.popitem(last=False)
                self._bytes -= oldest.info.size_bytes

    def clear(self) -> None:
        with self._lock:
            self._loaded.clear()
            self._bytes = 0

    def _load(self, key: str, load: Callable[[], T], promise: Future[T]) -> T:
        try:
            artefact = load()
        except BaseException as error:
            promise.set_exception(error if isinstance(error, ModelError) else ModelError())
            raise
        finally:
            with self._lock:
                del self._loading[key]
        self.put(key, artefact)
        promise.set_result(artefact)
        return artefact
