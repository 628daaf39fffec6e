"""How fast a queue drains: known from what leaves while more waits."""

from __future__ import annotations

import pytest

from models.drain_rate import DrainRate


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_to_leave_after_a_pause_is_not_counted() -> None:
    clock = Clock()
    rate = DrainRate(clock)
    clock.now = 60  # a model has loaded
    rate.left(100, more=True)
    assert (rate.value, rate.seconds(100), rate.retry_after(100)) == (0, 0, 1)
    clock.now += 2
    rate.left(100, more=False)
    assert rate.value == pytest.approx(50)
    clock.now += 1000
    rate.left(100, more=True)
    assert rate.value == pytest.approx(50)


def test_it_forgets() -> None:
    clock = Clock()
    rate = DrainRate(clock)
    rate.left(0, more=True)
    for size in (1000, *[10] * 100):
        clock.now += 1
        rate.left(size, more=True)
    assert rate.value == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize(("waiting", "seconds"), [(1, 1), (300, 30), (10_000, 60)])
def test_the_time_to_come_again_is_bounded(waiting: int, seconds: float) -> None:
    clock = Clock()
    rate = DrainRate(clock)
    rate.left(0, more=True)
    clock.now += 1
    rate.left(10, more=True)
    assert rate.retry_after(waiting) == pytest.approx(seconds)


def steady(clock: Clock, intervals: list[float]) -> DrainRate:
    """One unit has left after each interval, while more waits."""
    rate = DrainRate(clock)
    rate.left(0, more=True)
    for seconds in intervals:
        clock.now += seconds
        rate.left(1, more=True)
    return rate


def test_a_model_that_loads_in_the_middle_of_work_does_not_sink_it() -> None:
    rate = steady(Clock(), [*[0.1] * 500, 110])
    assert 2 < rate.value < 10


def test_work_that_is_slow_is_known_from_the_second_interval_on() -> None:
    assert steady(Clock(), [40, 40, 40]).value == pytest.approx(1 / 40, rel=0.02)


def test_what_failed_is_no_interval() -> None:
    clock = Clock()
    rate = steady(clock, [0.1] * 100)
    rate.interrupt()
    clock.now += 60
    rate.left(1, more=True)
    assert rate.value == pytest.approx(10)


def test_a_time_that_was_measured_counts_in_full() -> None:
    rate = DrainRate()
    rate.took(50, 10)
    assert (rate.value, rate.seconds(100)) == (pytest.approx(5), pytest.approx(20))
    rate.took(0, 0)
    assert rate.value == pytest.approx(5)
