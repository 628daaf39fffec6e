"""Loaded artefacts: one load for many threads, bounded by bytes, least recently used first."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from models.errors import StorageError
from models.stores.artefact_cache import ArtefactCache

WAIT = 60.0


def artefact(size: int = 10) -> Any:
    return SimpleNamespace(info=SimpleNamespace(size_bytes=size))


class Loader:
    """Counts loads; waits until opened; fails when told to."""

    def __init__(self, opened: bool = True, error: Exception | None = None) -> None:
        self.loads = 0
        self.error = error
        self.started = threading.Event()
        self.open = threading.Event()
        if opened:
            self.open.set()

    def __call__(self) -> Any:
        self.loads += 1
        self.started.set()
        assert self.open.wait(WAIT)
        if self.error:
            raise self.error
        return artefact()


def test_an_artefact_is_loaded_once() -> None:
    cache, load = ArtefactCache[Any](100), Loader()
    assert cache.get("a", load) is cache.get("a", load)
    assert load.loads == 1
    assert cache.size_bytes == 10


def test_the_least_recently_used_leaves_first() -> None:
    cache, load = ArtefactCache[Any](30), Loader()
    for key in "abc":
        cache.get(key, load)
    cache.get("a", load)
    cache.get("d", load)
    assert cache.size_bytes == 30
    assert load.loads == 4
    cache.get("a", load)
    assert load.loads == 4
    cache.get("b", load)
    assert load.loads == 5


def test_one_above_the_bound_is_used_but_not_kept() -> None:
    cache = ArtefactCache[Any](30)
    big, load = artefact(31), Loader()
    cache.get("a", load)
    assert cache.get("big", lambda: big) is big
    assert cache.size_bytes == 10, "it does not drive out the others either"
    cache.get("a", load)
    assert load.loads == 1


def test_threads_wait_for_one_load_and_others_go_on() -> None:
    cache, slow = ArtefactCache[Any](100), Loader(opened=False)
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(cache.get("a", slow))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    assert slow.started.wait(WAIT)
    assert cache.get("b", Loader()) is not None
    slow.open.set()
    for thread in threads:
        thread.join()
    assert slow.loads == 1
    assert len({id(result) for result in results}) == 1


def test_a_failed_load_fails_all_who_wait_and_is_tried_again() -> None:
    cache, slow = ArtefactCache[Any](100), Loader(opened=False, error=StorageError("broken"))
    errors: list[BaseException] = []

    def get() -> None:
        try:
            cache.get("a", slow)
        except StorageError as error:
            errors.append(error)

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert slow.started.wait(WAIT)
    slow.open.set()
    for thread in threads:
        thread.join()
    assert len(errors) == 3
    assert cache.get("a", Loader()) is not None


def test_other_exceptions_reach_the_loading_thread_unchanged() -> None:
    with pytest.raises(ZeroDivisionError):
        ArtefactCache[Any](100).get("a", Loader(error=ZeroDivisionError()))


def test_clear_forgets_everything() -> None:
    cache, load = ArtefactCache[Any](100), Loader()
    cache.get("a", load)
    cache.clear()
    assert cache.size_bytes == 0
    cache.get("a", load)
    assert load.loads == 2


def test_what_nobody_asks_for_leaves_after_its_time() -> None:
    now = [0.0]
    cache, load = ArtefactCache[Any](100, ttl_s=60, clock=lambda: now[0]), Loader()
    cache.get("a", load)
    cache.get("b", load)
    now[0] = 50
    cache.get("a", load)
    now[0] = 100
    assert cache.size_bytes == 10
    cache.get("a", load)
    assert load.loads == 2
    now[0] = 161
    assert cache.size_bytes == 0
    cache.get("a", load)
    assert load.loads == 3
