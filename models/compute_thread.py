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
        self._longest = 0.0
        self._longest_size = 1

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
        seconds = time.monotonic() - self._began
        if seconds > self._longest:
            self._longest, self._longest_size = seconds, self._size
        return seconds

    def stuck(self, grace: float) -> bool:
        """Whether nothing has happened for `grace` seconds beyond what a batch may take."""
        since = self._since
        return since is not None and time.monotonic() - since > grace + self._expected()

    def _expected(self) -> float:
        scaled = self._longest * max(1.0, self._size / self._longest_size)
        return max(PATIENCE * scaled, self._size * self._unit_seconds)


def tick() -> None:
    """Called inside long computations: the batch that this thread has in hand gets on."""
    thread = threading.current_thread()
    if isinstance(thread, ComputeThread):
        thread.tick()


def stuck_threads(grace: float) -> list[str]:
    """Names of this process's compute threads that get nowhere."""
    threads = threading.enumerate()
    return [t.name for t in threads if isinstance(t, ComputeThread) and t.stuck(grace)]
