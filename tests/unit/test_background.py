"""Threads that compute step aside; those that serve do not."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from models import background
from models.background import in_background

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@LINUX
def test_what_a_load_starts_computes_with_less_priority(pool: ThreadPoolExecutor) -> None:
    ours = niceness()
    other = ThreadPoolExecutor(1)
    assert other.submit(niceness).result() == ours

    def load() -> int:
        assert pool.submit(niceness).result() == min(19, ours + 1)
        return niceness()

    assert in_background(load, 7) == min(19, ours + 1)
    assert pool.submit(niceness).result() == min(19, ours + 7)
    with ThreadPoolExecutor(1) as child:  # started by a thread that steps aside
        assert pool.submit(lambda: child.submit(niceness).result()).result() == min(19, ours + 7)
    assert (niceness(), other.submit(niceness).result()) == (ours, ours)
    other.shutdown()


@LINUX
def test_a_second_load_does_the_same(pool: ThreadPoolExecutor) -> None:
    ours = niceness()
    for _ in range(2):
        with ThreadPoolExecutor(1) as own:
            in_background(lambda own=own: own.submit(niceness).result(), 19)  # type: ignore[misc]
            assert own.submit(niceness).result() == 19
    assert niceness() == ours


def test_no_thread_is_made_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_background(threading.current_thread, 0) is threading.current_thread()
    monkeypatch.setattr(background, "TASKS", background.TASKS / "none")
    assert in_background(threading.current_thread, 5) is threading.current_thread()


def test_a_failure_is_raised_here() -> None:
    def load() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        in_background(load, 5)
