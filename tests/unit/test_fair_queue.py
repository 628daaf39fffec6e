"""Waiting requests: bounded in number, size and time, and fair between callers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.ingress.fair_queue import FairQueue, QueueBounds, Waiting
from models.drain_rate import DrainRate
from models.errors import OverloadedError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


Queue = FairQueue[str, str]
ROOMY = QueueBounds(100, 1000, 1000.0, call_requests=4, call_size=1000)


def entry(request: str, caller: str = "", size: int = 1) -> Waiting[str, str]:
    return Waiting(request, caller, size)


def filled(queue: Queue, *requests: str) -> list[Waiting[str, str]]:
    """Requests as "caller:name"."""
    entries = [entry(text, text.partition(":")[0]) for text in requests]
    for one in entries:
        queue.add(one)
    return entries


def names(entries: list[Waiting[str, str]]) -> list[str]:
    return [one.request for one in entries]


async def test_callers_take_turns_and_each_ones_requests_keep_their_order() -> None:
    queue = Queue(ROOMY)
    filled(queue, "a:1", "a:2", "a:3", "b:1", "c:1", "c:2")
    assert names(queue.take()) == ["a:1", "b:1", "c:1", "a:2"]
    assert names(queue.take()) == ["c:2", "a:3"]
    assert len(queue) == 0


async def test_what_is_taken_together_is_bounded_in_size() -> None:
    queue = Queue(replace(ROOMY, call_size=5))
    for size in (9, 3, 2, 4):
        queue.add(entry(str(size), size=size))
    assert names(queue.take()) == ["9"]
    assert names(queue.take()) == ["3", "2"]
    assert names(queue.take()) == ["4"]


async def test_a_full_queue_refuses_the_caller_that_has_the_most() -> None:
    queue = Queue(QueueBounds(4, 1000, 1000.0, call_requests=4))
    filled(queue, "a:1", "a:2", "a:3", "b:1")
    with pytest.raises(OverloadedError):
        queue.add(entry("a:4", "a"))
    assert len(queue) == 4


async def test_another_caller_takes_the_newest_place_of_the_one_with_the_most() -> None:
    queue = Queue(QueueBounds(4, 1000, 1000.0, call_requests=4))
    first = filled(queue, "a:1", "a:2", "a:3", "b:1")
    queue.add(entry("b:2", "b"))
    assert isinstance(first[2].future.exception(), OverloadedError)
    with pytest.raises(OverloadedError):  # both have two now
        queue.add(entry("b:3", "b"))
    assert names(queue.take()) == ["a:1", "b:1", "a:2", "b:2"]


async def test_a_large_request_takes_as_many_places_as_it_needs() -> None:
    queue = Queue(QueueBounds(requests=10, size=10, seconds=1000.0, call_requests=10))
    first = filled(queue, *(f"a:{i}" for i in range(9)))
    queue.add(entry("b:large", "b", size=5))
    assert [one.future.done() for one in first] == [False] * 5 + [True] * 4
    assert names(queue.take()) == ["a:0", "b:large", "a:1", "a:2", "a:3", "a:4"]


@pytest.mark.parametrize("size", [9, 10, 11, 1 << 40])
async def test_who_finds_no_room_takes_nobodys_place(size: int) -> None:
    queue = Queue(QueueBounds(requests=10, size=10, seconds=1000.0, call_requests=10))
    first = filled(queue, "a:1", "a:2", "a:3", "b:1")
    with pytest.raises(OverloadedError):
        queue.add(entry("c:large", "c", size=size))
    assert not any(one.future.done() for one in first)
    assert len(queue) == 4


async def test_the_bound_on_size_lets_a_single_larger_request_in() -> None:
    queue = Queue(QueueBounds(requests=4, size=10, seconds=1000.0))
    queue.add(entry("large", size=99))
    with pytest.raises(OverloadedError):
        queue.add(entry("small"))
    assert names(queue.take()) == ["large"]
    queue.add(entry("small"))


async def test_who_would_wait_too_long_is_refused_with_the_time_to_come_again() -> None:
    queue = Queue(QueueBounds(100, 1000, 5.0, call_requests=5, call_size=1000))
    clock = Clock()
    queue.rate = DrainRate(clock)
    queue.rate.left(0, more=True)
    clock.now += 1
    queue.rate.left(2, more=True)  # two calls a second
    filled(queue, *(f"a:{i}" for i in range(50)))
    queue.add(entry("a:last", "a"))  # what waits takes ten calls, 5 s
    with pytest.raises(OverloadedError) as refused:
        queue.add(entry("a:late", "a"))
    assert refused.value.retry_after == pytest.approx(5.1)


async def test_leaving_gives_the_place_back() -> None:
    queue = Queue(QueueBounds(2, 1000, 1000.0, call_requests=4))
    first, _ = filled(queue, "a:1", "a:2")
    queue.discard(first)
    queue.discard(first)
    filled(queue, "a:3")
    assert names(queue.take()) == ["a:2", "a:3"]
    queue.discard(first)
    assert len(queue) == 0


async def test_a_place_whose_client_has_just_gone_is_taken_quietly() -> None:
    queue = Queue(QueueBounds(4, 1000, 1000.0, call_requests=4))
    first = filled(queue, "a:1", "a:2", "a:3", "b:1")
    first[2].future.cancel()
    queue.add(entry("b:2", "b"))
    assert names(queue.take()) == ["a:1", "b:1", "a:2", "b:2"]


async def test_leaving_gives_the_size_back() -> None:
    queue = Queue(QueueBounds(requests=4, size=10, seconds=1000.0))
    large = entry("large", size=9)
    queue.add(large)
    queue.add(entry("small"))
    queue.discard(large)
    queue.add(entry("next", size=9))
    assert len(queue) == 2
