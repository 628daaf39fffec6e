"""Ctrl-C, SIGTERM and a closed terminal: the first asks for an orderly end, the second for any."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FIRST = b"\nStopping. Once more ends at once.\n"


class StopSignals:
    """Only counts: nothing is interrupted midway, so that every started process is known."""

    def __init__(self, at_once: Callable[[], None]) -> None:
        self._at_once = at_once
        self._count = 0

    @property
    def requested(self) -> bool:
        return self._count > 0

    def note(self) -> None:
        """Count a request that arrived by another way."""
        self._count += 1

    def install(self) -> None:
        """Take them over, from Ray or from a shell that has background jobs ignore SIGINT."""
        for number in SIGNALS:
            signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.note()
        if self._count == 1:
            with suppress(OSError):  # a closed terminal
                os.write(2, FIRST)  # not print: the signal may have come in the middle of one
        else:
            self._at_once()
