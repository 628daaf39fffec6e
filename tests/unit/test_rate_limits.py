"""Buckets that refill: admitted at once, charged afterwards, told when to come again."""

from __future__ import annotations

import pytest

from deployments.ingress.access import rate_limits
from deployments.ingress.access.rate_limits import Allowance, Bucket
from models.errors import OverloadedError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_minutes_worth_is_there_and_comes_back_steadily() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)
    bucket.charge(60)
    assert bucket.wait_s(1) == 1.0
    clock.now = 0.5
    assert bucket.wait_s(1) == 0.5
    clock.now = 1000
    bucket.charge(0)
    assert bucket.wait_s(60) == 0
    assert bucket.wait_s(61) == 1.0


def test_what_cost_more_than_was_left_holds_up_for_as_long() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)
    bucket.charge(180)
    assert bucket.wait_s(1) == 121.0
    clock.now = 121.0
    assert bucket.wait_s(1) == 0


def test_requests_and_tokens_are_limited_on_their_own() -> None:
    allowance = Allowance(2, 100)
    allowance.admit()
    allowance.spend(500)
    with pytest.raises(OverloadedError, match="tokens") as caught:
        allowance.admit()
    assert caught.value.retry_after == pytest.approx(240.6, abs=1)
    allowance = Allowance(2, None)
    for _ in range(2):
        allowance.admit()
    with pytest.raises(OverloadedError, match="requests") as caught:
        allowance.admit()
    assert caught.value.retry_after == pytest.approx(30, abs=1)


def test_no_limits_never_end() -> None:
    allowance = Allowance(None, None)
    for _ in range(10_000):
        allowance.admit()
    allowance.spend(10**12)
    allowance.admit()


def test_the_wall_clock_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    allowance = Allowance(1, None)
    allowance.admit()
    monkeypatch.setattr(rate_limits.time, "time", lambda: 1e12)
    with pytest.raises(OverloadedError):
        allowance.admit()
