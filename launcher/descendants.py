"""The processes that the server consists of."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

POLL_S = 0.02
KILL_S = 5.0
"""What a killed process may take to be gone."""


class Descendants:
    """All processes started by one; remembered, because orphans are no longer its children."""

    def __init__(self, pid: int) -> None:
        self._ancestor = psutil.Process(pid)
        self._seen: set[psutil.Process] = set()
        self._children: dict[psutil.Process, str] = {}

    def look(self) -> None:
        """Remember those that are there now."""
        self._children = {}
        for child in self._ancestor.children():
            with suppress(psutil.NoSuchProcess):  # it ended since it was listed
                self._children[child] = child.name()
        self._seen |= set(self._ancestor.children(recursive=True))

    def lost(self) -> list[str]:
        """Names of those that were its children and have ended: Ray cannot go on without them."""
        return [name for process, name in self._children.items() if _ended(process)]

    def end(self, grace_s: float) -> int:
        """Wait for all to end, then kill what is left; returns how many had to be killed."""
        self.look()
        alive = self._wait(grace_s)
        self.kill()
        return alive

    def kill(self) -> None:
        """End all at once."""
        self.look()
        for process in self._seen:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._wait(KILL_S)

    def _wait(self, limit_s: float) -> int:
        """How many are alive when all have ended or the time is over.

        Zombies have ended: in a container nobody may ever collect orphans.
        """
        end = time.monotonic() + limit_s
        while (alive := sum(not _ended(process) for process in self._seen)) > 0:
            if time.monotonic() >= end:
                break
            time.sleep(POLL_S)
        return alive


def _ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
