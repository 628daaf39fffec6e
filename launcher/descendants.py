"""The processes that the server consists of."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

VITAL = frozenset({"gcs_server", "raylet"})
"""Ray replaces whatever else ends, or goes on without it."""
POLL_S = 0.02
KILL_S = 5.0
"""What a killed process may take to be gone."""


class Descendants:
    """All processes started by one; remembered, because orphans are no longer its children."""

    def __init__(self, pid: int) -> None:
        self._ancestor = psutil.Process(pid)
        self._seen: set[psutil.Process] = set()
        self._stopped: set[psutil.Process] = set()
        self._vital: dict[psutil.Process, str] = {}

    def look(self) -> None:
        """Remember those that are there now."""
        for child in self._ancestor.children():
            with suppress(psutil.NoSuchProcess):  # it ended since it was listed
                if (name := child.name()) in VITAL:
                    self._vital[child] = name
        alive = {process for process in self._seen if not _ended(process)}
        self._seen = alive | set(self._ancestor.children(recursive=True))

    def lost(self) -> list[str]:
        """Names of those that have ended and without which Ray cannot go on."""
        return [name for process, name in self._vital.items() if _ended(process)]

    def end_stopped(self) -> None:
        """Kill those that are stopped (SIGSTOP) and were so at the last call.

        Nobody will continue them. To Ray they look alive for minutes; what has ended it replaces.
        """
        stopped = {process for process in self._seen if _status(process) == psutil.STATUS_STOPPED}
        for process in stopped & self._stopped:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._stopped = stopped

    def end(self, grace_s: float) -> None:
        """Wait for all to end, then kill what is left."""
        self.look()
        self._wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """End all at once."""
        self.look()
        for process in self._seen:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._wait(KILL_S)

    def _wait(self, limit_s: float) -> None:
        """Until all have ended or the time is over.

        Zombies have ended: in a container nobody may ever collect orphans.
        """
        end = time.monotonic() + limit_s
        while time.monotonic() < end and not all(map(_ended, self._seen)):
            time.sleep(POLL_S)


def _ended(process: psutil.Process) -> bool:
    return _status(process) in {None, psutil.STATUS_ZOMBIE}


def _status(process: psutil.Process) -> str | None:
    """None when it is gone."""
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return None
