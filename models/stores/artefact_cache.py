"""Loaded artefacts, bounded by bytes and by idle time; the least recently used one leaves first."""

from __future__ import annotations

import math
import threading
import time
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

    def __init__(
        self,
        max_bytes: int,
        ttl_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._used: dict[str, float] = {}
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, T] = OrderedDict()
        self._loading: dict[str, Future[T]] = {}
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        with self._lock:
            self._expire()
        return self._bytes

    def get(self, key: str, load: Callable[[], T]) -> T:
        """The artefact, loaded if need be; raises what `load` raises."""
        with self._lock:
            self._expire()
            if key in self._loaded:
                self._touch(key)
                return self._loaded[key]
            waiting = self._loading.get(key)
            if waiting is None:
                mine = self._loading[key] = Future()
        return waiting.result() if waiting else self._load(key, load, mine)

    def put(self, key: str, artefact: T) -> None:
        """Keep an artefact; one above the bound alone is not kept."""
        size = artefact.info.size_bytes
        with self._lock:
            if key in self._loaded or size > self._max_bytes:
                return
            self._loaded[key] = artefact
            self._touch(key)
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._loaded)))

    def clear(self) -> None:
        with self._lock:
            self._loaded.clear()
            self._used.clear()
            self._bytes = 0

    def _touch(self, key: str) -> None:
        self._loaded.move_to_end(key)
        self._used[key] = self._clock()

    def _expire(self) -> None:
        """Drop what nobody has asked for since `ttl_s`; the order is that of the last use."""
        before = self._clock() - self._ttl_s
        for key in list(self._loaded):
            if self._used[key] >= before:
                return
            self._drop(key)

    def _drop(self, key: str) -> None:
        del self._used[key]
        self._bytes -= self._loaded.pop(key).info.size_bytes

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
