"""How much one key may ask for per minute, at one replica of the ingress.

A bucket of a minute's allowance refills steadily, by the monotonic clock. What a request costs is
known when it has been answered, so that a bucket may fall below zero and then holds requests up for
as long as that takes to refill. (The libraries of rate limits count windows of wall-clock time, and
refuse what costs more than is left instead of charging it afterwards.)
"""

from __future__ import annotations

import time
from collections.abc import Callable

from models.errors import OverloadedError

MINUTE_S = 60.0


class Bucket:
    """`per_minute` units, all of them there at the start."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = float(per_minute)
        self._level = self._capacity
        self._clock = clock
        self._seen = clock()

    def charge(self, units: int) -> None:
        """Take units, also more than there are."""
        self._refill()
        self._level -= units

    def wait_s(self, units: int) -> float:
        """Seconds until there are so many units; 0: they are there."""
        self._refill()
        return max(0.0, (units - self._level) / self._capacity * MINUTE_S)

    def _refill(self) -> None:
        now = self._clock()
        gained = (now - self._seen) / MINUTE_S * self._capacity
        self._level = min(self._capacity, self._level + gained)
        self._seen = now


class Allowance:
    """The buckets of one key: requests and tokens, where they are limited."""

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self._requests = None if requests_per_minute is None else Bucket(requests_per_minute)
        self._tokens = None if tokens_per_minute is None else Bucket(tokens_per_minute)

    def admit(self) -> None:
        """Count one request. Raises OverloadedError, which says when to try again."""
        for bucket, what in ((self._requests, "requests"), (self._tokens, "tokens")):
            wait = bucket.wait_s(1) if bucket is not None else 0.0
            if wait > 0:
                raise OverloadedError(f"The limit of {what} per minute is reached.", wait)
        if self._requests is not None:
            self._requests.charge(1)

    def spend(self, tokens: int) -> None:
        if self._tokens is not None:
            self._tokens.charge(tokens)
