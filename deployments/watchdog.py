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

from models.compute_thread import stuck_threads

BEAT_S = 1.0
LOCKED = 2
"""Times `grace_s`: how long the interpreter may stand still. Libraries hold its lock at start."""

logger = logging.getLogger("ray.serve")


class Watchdog:
    """Looks at the compute threads once a second; `grace_s` is what `ComputeThread.stuck` takes."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """May be called again."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while True:
            # A thread of C, which needs no interpreter: it notices when this one is never let run.
            faulthandler.dump_traceback_later(LOCKED * self._grace_s + BEAT_S, exit=True)
            stuck = stuck_threads(self._grace_s)
            if stuck:
                logger.critical("Nothing comes from %s any more: the replica ends.", stuck)
                faulthandler.dump_traceback()
                os._exit(1)
            time.sleep(BEAT_S)
