"""How fast a queue drains, and when to come again."""

from __future__ import annotations

import time
from collections.abc import Callable

RETRY_AFTER_BOUNDS = (1.0, 60.0)
HALF_LIFE_S = 10.0
"""Of what is remembered."""
SHORTEST_S = 1e-6


class DrainRate:
    """Units per second that leave while there is no lack of work; 0 until it is known.

    The first to leave after a pause is not counted: it may have waited for a model to load. Where
    that happens in the middle of work, it counts for `half_life_s` at most; only a second long
    interval in a row tells that work is slow.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, half_life_s: float = HALF_LIFE_S
    ) -> None:
        self._clock = clock
        self._half_life_s = half_life_s
        self._last: float | None = None
        self._interval = 0.0
        self._done = 0.0
        self._seconds = 0.0

    @property
    def value(self) -> float:
        return self._done / self._seconds if self._seconds else 0.0

    def left(self, size: float, *, more: bool) -> None:
        """So much has left; `more` waits."""
        now = self._clock()
        if self._last is not None:
            longest = max(self._half_life_s, 2 * self._interval)
            self._interval = now - self._last
            self.took(size, min(self._interval, longest))
        self._last = now if more else None

    def took(self, size: float, seconds: float) -> None:
        """So much was done in so many seconds, for those who measure that themselves."""
        seconds = max(seconds, SHORTEST_S)
        kept = 0.5 ** (seconds / self._half_life_s)
        self._done = self._done * kept + size
        self._seconds = self._seconds * kept + seconds

    def interrupt(self) -> None:
        """Something failed: how long the next to leave takes tells nothing."""
        self._last = None

    def seconds(self, size: float) -> float:
        """Until so much has drained; 0 while the rate is unknown."""
        return size / self.value if self.value else 0.0

    def retry_after(self, size: float) -> float:
        low, high = RETRY_AFTER_BOUNDS
        return min(high, max(low, self.seconds(size)))
