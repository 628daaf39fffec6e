"""Threads that hang are told from threads that compute for long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from models.batching import BatchLimits, DynamicBatcher
from models.compute_thread import ComputeThread, stuck_threads, tick
from models.errors import ModelError, OutOfMemoryError

WAIT = 60.0


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("models.compute_thread.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def thread(unit_seconds: float = 0.0) -> ComputeThread:
    return ComputeThread(lambda: None, "test", unit_seconds)


def test_an_idle_thread_is_never_stuck(clock: Clock) -> None:
    idle = thread()
    clock.now += 1e6
    assert not idle.stuck(1)


def test_a_batch_without_a_past_may_take_the_grace_and_its_size(clock: Clock) -> None:
    fresh = thread(unit_seconds=2.0)
    fresh.begin(10)
    clock.now += 34
    assert not fresh.stuck(15)
    clock.now += 2
    assert fresh.stuck(15)
    fresh.end()
    assert not fresh.stuck(15)


def test_the_longest_batch_says_how_long_one_may_take(clock: Clock) -> None:
    slow = thread()
    slow.begin(100)
    clock.now += 10
    slow.end()
    slow.begin(1)
    clock.now += 54  # 15 and four times the longest
    assert not slow.stuck(15)
    clock.now += 2
    assert slow.stuck(15)
    slow.end()


def test_a_larger_batch_may_take_longer_in_proportion(clock: Clock) -> None:
    slow = thread()
    slow.begin(10)
    clock.now += 1
    assert slow.end() == 1
    slow.begin(100)
    clock.now += 54  # 15 and four times ten seconds
    assert not slow.stuck(15)
    clock.now += 2
    assert slow.stuck(15)


def test_a_long_batch_is_forgotten(clock: Clock) -> None:
    paused = thread()
    paused.begin()
    clock.now += 600
    paused.end()
    clock.now += 3600
    paused.begin()
    paused.end()
    paused.begin()
    clock.now += 54  # 15 and four times 600 s halved six times
    assert paused.stuck(15)
    assert not paused.stuck(20)


def test_what_was_before_a_pause_of_the_process_does_not_count(clock: Clock) -> None:
    paused = thread()
    paused.begin()
    clock.now += 600
    resumed = clock.now
    assert paused.stuck(15)
    assert not paused.stuck(15, resumed)
    clock.now += 16
    assert paused.stuck(15, resumed)


def test_progress_within_a_batch_counts(clock: Clock) -> None:
    working = thread()
    working.begin()
    clock.now += 14
    working.tick()
    clock.now += 14
    assert not working.stuck(15)
    clock.now += 2
    assert working.stuck(15)


@contextmanager
def batcher(compute: Callable[[list[str]], list[str]]) -> Iterator[DynamicBatcher[str, str]]:
    limits = BatchLimits(10, 10, 100, unit_seconds=0.0)
    running = DynamicBatcher[str, str](compute, len, limits, name="hanging")
    yield running
    running.close()


def test_a_hanging_batch_is_found_by_its_threads_name() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hang(items: list[str]) -> list[str]:
        tick()
        entered.set()
        leave.wait(WAIT)
        return items

    with batcher(hang) as running:
        future = running.submit(["a"])
        assert entered.wait(WAIT)
        assert stuck_threads(grace=600) == []
        while stuck_threads(grace=0) != ["hanging"]:
            pass  # some nanoseconds must pass
        leave.set()
        assert future.result(WAIT) == ["a"]
    assert stuck_threads(grace=0) == []


def test_tick_elsewhere_says_nothing() -> None:
    tick()
    assert stuck_threads(grace=0) == []


def test_the_item_that_takes_all_memory_fails_alone() -> None:
    def allocate(items: list[str]) -> list[str]:
        if "large" in items:
            raise MemoryError
        return items

    with batcher(allocate) as running:
        results: list[str | ModelError] = running.submit(["a", "large", "b"]).result(WAIT)
        assert [results[0], results[2]] == ["a", "b"]
        assert isinstance(results[1], OutOfMemoryError)
