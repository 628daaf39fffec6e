"""What keeps a running server whole, beside Ray, which replaces what ended."""

from __future__ import annotations

import time

from launcher.descendants import Descendants
from launcher.errors import LaunchError
from launcher.front import Front

STOPPED_CHECK_S = 1.0
LOOK_S = 10.0
"""Listing all processes of a machine costs a hundred times what asking for the known ones does."""


class Supervisor:
    """Starts the front again, ends what is stopped, gives up without what Ray cannot replace."""

    def __init__(self, front: Front | None, descendants: Descendants) -> None:
        self._front = front
        self._descendants = descendants
        self._checked = self._looked = time.monotonic()
        self.gave_up = False

    def check(self) -> None:
        """To be called a few times a second. Raises LaunchError when only a new start helps."""
        now = time.monotonic()
        if (self._front is not None and self._front.revive()) or now - self._looked >= LOOK_S:
            self._descendants.look()
            self._looked = now
        if now - self._checked >= STOPPED_CHECK_S:
            self._descendants.end_stopped()
            self._checked = now
        if lost := self._descendants.lost():
            self.gave_up = True
            raise LaunchError(f"Ray's process '{lost[0]}' has ended unexpectedly.")
