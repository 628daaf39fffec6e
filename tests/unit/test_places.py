"""Places in a generation engine: bounded, not all of one caller, with the time to come again."""

from __future__ import annotations

import pytest

from models.continuous_batching.places import Places
from models.drain_rate import DrainRate
from models.errors import InvalidInputError, OverloadedError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fill(places: Places, caller: str, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        places.take(f"{caller}-{number}", caller)


def test_a_full_engine_refuses_until_someone_leaves() -> None:
    places = Places(4)
    fill(places, "", 4)
    with pytest.raises(OverloadedError):
        places.take("late", "")
    assert places.leave("-0")
    assert not places.leave("-0")
    ticket = places.take("late", "")
    assert places.holds("late", ticket)
    with pytest.raises(InvalidInputError):
        places.take("late", "other")
    assert sorted(places.leave_all()) == ["-1", "-2", "-3", "late"]
    assert not places.holds("late", ticket)


def test_the_last_quarter_is_for_callers_that_hold_less() -> None:
    places = Places(16)
    fill(places, "flood", 12)
    with pytest.raises(OverloadedError):
        fill(places, "flood", 1, start=12)
    fill(places, "other", 3)
    fill(places, "third", 1)
    with pytest.raises(OverloadedError):  # full
        fill(places, "fourth", 1)


def test_refusals_tell_when_the_queue_should_have_drained() -> None:
    clock = Clock()
    places = Places(10, DrainRate(clock))
    fill(places, "", 10)
    for number in range(5):
        clock.now += 2
        places.finish([f"-{number}"])
    fill(places, "", 5, start=10)
    with pytest.raises(OverloadedError) as refused:
        places.take("late", "")
    assert refused.value.retry_after == pytest.approx(20)
