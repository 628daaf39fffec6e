"""The processes that the server consists of."""

from __future__ import annotations

from contextlib import suppress

import psutil


class Descendants:
    """All processes started by this one; remembered, because orphans are no longer its children."""

    def __init__(self) -> None:
        self._seen: set[psutil.Process] = set()
        self._children: dict[psutil.Process, str] = {}

    def look(self) -> None:
        """Remember those that are there now."""
        self._children = {child: child.name() for child in psutil.Process().children()}
        self._seen |= set(psutil.Process().children(recursive=True))

    def lost(self) -> list[str]:
        """Names of those that were our children and have ended: Ray cannot go on without them."""
        return [name for process, name in self._children.items() if _ended(process)]

    def end(self, grace_s: float) -> int:
        """Wait for all to end, then kill what is left; returns how many had to be killed."""
        self.look()
        _, alive = psutil.wait_procs(self._seen, timeout=grace_s)
        self.kill()
        return len(alive)

    def kill(self) -> None:
        """End all at once."""
        self.look()
        for process in self._seen:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(self._seen, timeout=5)


def _ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
