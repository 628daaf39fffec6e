"""What keeps a running server whole, beside Ray, which replaces what ended."""

from __future__ import annotations

import time

from launcher.descendants import Descendants
from launcher.errors import LaunchError
from launcher.front import Front

STOPPED_CHECK_S = 1.0
LOOK_S = 10.0
"""Listing all processes of a machine costs a hundred times what asking for the known ones does."""
FRONT_TRIES = 5
"""How often in a row a front may fail to start: its port or memory may be taken for a moment."""


class Supervisor:
    """Starts the front again, ends what is stopped, gives up without what Ray cannot replace."""

    def __init__(self, front: Front | None, descendants: Descendants) -> None:
        self._front = front
        self._descendants = descendants
        self._checked = self._looked = time.monotonic()
        self._failures = 0
        self.gave_up = False

    def check(self) -> None:
        """To be called a few times a second. Raises LaunchError when only a new start helps."""
        now = time.monotonic()
        if self._revived_front() or now - self._looked >= LOOK_S:
            self._descendants.look()
            self._looked = now
        if now - self._checked >= STOPPED_CHECK_S:
            self._descendants.end_stopped()
            self._checked = now
        if lost := self._descendants.lost():
            self.gave_up = True
            raise LaunchError(f"Ray's process '{lost[0]}' has ended unexpectedly.")

    def _revived_front(self) -> bool:
        """Whether the front had to be started again. Raises LaunchError when it cannot be."""
        if self._front is None:
            return False
        try:
            revived = self._front.revive()
        except (LaunchError, OSError) as error:
            self._failures += 1
            if self._failures == FRONT_TRIES:
                raise LaunchError(str(error)) from error
            return False
        self._failures = 0
        return revived
