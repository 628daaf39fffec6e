"""A model whose calls end replica after replica is left alone for a while."""

from __future__ import annotations

import pytest

from deployments.handles.loss_breaker import LossBreaker
from models.errors import ModelLoadError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lost(breaker: LossBreaker, *replicas: str) -> None:
    for replica in replicas:
        breaker.lost("bad", replica)


def test_three_replicas_in_a_row_open_it_for_this_model_only(clock: Clock) -> None:
    breaker = LossBreaker(clock)
    lost(breaker, "r1", "r2")
    breaker.check("bad")
    lost(breaker, "r3")
    with pytest.raises(ModelLoadError) as refused:
        breaker.check("bad")
    assert refused.value.retry_after == 10
    breaker.check("good")


def test_many_calls_lost_with_one_replica_are_one_loss(clock: Clock) -> None:
    breaker = LossBreaker(clock)
    lost(breaker, "r1", "r1", "r1", "r2", "r2")
    breaker.check("bad")


def test_an_answer_in_between_starts_over(clock: Clock) -> None:
    breaker = LossBreaker(clock)
    lost(breaker, "r1", "r2")
    breaker.answered("bad")
    lost(breaker, "r3", "r4")
    breaker.check("bad")


def test_each_further_loss_doubles_the_pause_up_to_a_bound(clock: Clock) -> None:
    breaker = LossBreaker(clock)
    lost(breaker, "r1", "r2")
    pauses = []
    for number in range(8):
        lost(breaker, f"s{number}")
        with pytest.raises(ModelLoadError) as refused:
            breaker.check("bad")
        pauses.append(refused.value.retry_after)
        clock.now += refused.value.retry_after
        breaker.check("bad")
    assert pauses == pytest.approx([10, 20, 40, 80, 160, 300, 300, 300])
    breaker.answered("bad")
    lost(breaker, "t1", "t2")
    breaker.check("bad")


def test_losses_without_end_keep_the_longest_pause(clock: Clock) -> None:
    breaker = LossBreaker(clock)
    lost(breaker, *(f"r{number}" for number in range(1100)))
    with pytest.raises(ModelLoadError) as refused:
        breaker.check("bad")
    assert refused.value.retry_after == 300
