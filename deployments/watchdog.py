"""Ends the process of a replica that hangs, so that Serve replaces it.

Nothing less helps: a thread cannot be interrupted inside a native library, and what it holds of a
GPU is given back with its process. What the replica was asked is tried once more elsewhere.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable

from models.compute_thread import stuck_threads

BEAT_S = 1.0
LOCKED = 2
"""Times `grace_s`: how long the interpreter may stand still. Libraries hold its lock at start.

It cannot be told from a pause of the whole process, so that a longer one ends it too.
"""

logger = logging.getLogger("ray.serve")


class Watchdog:
    """Looks at the compute threads once a second; `grace_s` is what `ComputeThread.stuck` takes."""

    def __init__(self, grace_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._looked = self._resumed = 0.0

    def start(self) -> None:
        """May be called again."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while True:
            # A thread of C, which needs no interpreter: it notices when this one is never let run.
            faulthandler.dump_traceback_later(LOCKED * self._grace_s + BEAT_S, exit=True)
            if stuck := self.stuck():
                logger.critical("Nothing comes from %s any more: the replica ends.", stuck)
                faulthandler.dump_traceback()
                os._exit(1)
            time.sleep(BEAT_S)

    def stuck(self) -> list[str]:
        """Names of the threads that hang; to be asked once a second.

        If it is asked late, the whole process stood still, and they with it.
        """
        now = self._clock()
        if now - self._looked > BEAT_S + self._grace_s / 2:
            self._resumed = now
        self._looked = now
        return stuck_threads(self._grace_s, self._resumed)
