"""How fast a queue drains, and when to come again."""

from __future__ import annotations

import time
from collections.abc import Callable

RETRY_AFTER_BOUNDS = (1.0, 60.0)
HALF_LIFE_S = 10.0
"""Of what is remembered."""


class DrainRate:
    """Units per second that leave while there is no lack of work; 0 until it is known.

    The first to leave after a pause is not counted: it may have waited for a model to load.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._done = 0.0
        self._seconds = 0.0

    @property
    def value(self) -> float:
        return self._done / self._seconds if self._seconds else 0.0

    def left(self, size: float, *, more: bool) -> None:
        """So much has left; `more` waits."""
        now = self._clock()
        if self._last is not None:
            seconds = now - self._last
            kept = 0.5 ** (seconds / HALF_LIFE_S)
            self._done = self._done * kept + size
            self._seconds = self._seconds * kept + seconds
        self._last = now if more else None

    def seconds(self, size: float) -> float:
        """Until so much has drained; 0 while the rate is unknown."""
        return size / self.value if self.value else 0.0

    def retry_after(self, size: float) -> float:
        low, high = RETRY_AFTER_BOUNDS
        return min(high, max(low, self.seconds(size)))
