"""Threads that compute, and whether they still get anywhere.

A native library that hangs answers nothing and raises nothing: it shows only in a batch or a step
that does not end. How long one may take is learnt from those that did end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE = 4.0
"""Times the longest batch so far, scaled to the size of this one: machines can be busy."""
HALF_LIFE_S = 600.0
"""Of the longest batch: one that a pause of the whole process made long is forgotten."""


class ComputeThread(threading.Thread):
    """A daemon thread that says when it begins a batch (or a step) and when it has ended one.

    `unit_seconds`: what one unit of a batch's size may take before any was seen. Read by the
    watchdog's thread without a lock: each attribute is written by this thread alone.
    """

    def __init__(self, target: Callable[[], None], name: str, unit_seconds: float) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._unit_seconds = unit_seconds
        self._since: float | None = None
        self._began = 0.0
        self._size = 1
        self._longest = (0.0, 1, 0.0)
        """Seconds, size, and when it ended."""

    def begin(self, size: int = 1) -> None:
        self._size = max(size, 1)
        self._began = self._since = time.monotonic()

    def tick(self) -> None:
        """The batch in hand gets on."""
        if self._since is not None:
            self._since = time.monotonic()

    def end(self) -> float:
        """The batch's seconds."""
        self._since = None
        now = time.monotonic()
        seconds = now - self._began
        if seconds > self._remembered(now)[0]:
            self._longest = (seconds, self._size, now)
        return seconds

    def stuck(self, grace: float, resumed: float = 0.0) -> bool:
        """Whether nothing has happened for `grace` seconds beyond what a batch may take.

        `resumed`: when the process went on after a pause, as `time.monotonic` has it. What was
        before does not count.
        """
        since, now = self._since, time.monotonic()
        return since is not None and now - max(since, resumed) > grace + self._expected()

    def _expected(self) -> float:
        seconds, size = self._remembered(self._began)
        scaled = seconds * max(1.0, self._size / size)
        return max(PATIENCE * scaled, self._size * self._unit_seconds)

    def _remembered(self, now: float) -> tuple[float, int]:
        """Seconds and size of the longest batch."""
        seconds, size, ended = self._longest
        return seconds * 0.5 ** ((now - ended) / HALF_LIFE_S), size


def tick() -> None:
    """Called inside long computations: the batch that this thread has in hand gets on."""
    thread = threading.current_thread()
    if isinstance(thread, ComputeThread):
        thread.tick()


def stuck_threads(grace: float, resumed: float = 0.0) -> list[str]:
    """Names of this process's compute threads that get nowhere; see `ComputeThread.stuck`."""
    threads = threading.enumerate()
    return [t.name for t in threads if isinstance(t, ComputeThread) and t.stuck(grace, resumed)]
