"""One server from its start, through being ready, to the end of its last process."""

from __future__ import annotations

import os
import shutil
import threading
import time
from functools import partial
from pathlib import Path

from launcher.descendants import Descendants
from launcher.errors import LaunchError
from launcher.probe import HttpProbe
from launcher.ray_server import RayServer
from launcher.stop_signals import StopSignals
from launcher.welcome import welcome

OK, FAILED, ENDED_AT_ONCE = 0, 1, 130
START_DEADLINE_S = 300.0
STOP_DEADLINE_S = 60.0
GRACE_S = 10.0
"""What Ray's processes may take to end after it has been shut down."""
POLL_S = 0.2


class Launch:
    """Runs a server in the foreground; `folder` is removed even if it has to end at once."""

    def __init__(
        self, server: RayServer, probe: HttpProbe, descendants: Descendants, folder: Path
    ) -> None:
        self._server = server
        self._probe = probe
        self._descendants = descendants
        self._folder = folder
        self._begin = time.monotonic()
        self._signals = StopSignals(partial(self._end_at_once, ENDED_AT_ONCE))

    def run(self) -> int:
        """Raises LaunchError when the server cannot run; nothing is left running then either."""
        self._signals.install()
        try:
            self._start()
            self._wait_until_ready()
            if not self._signals.requested:
                models = self._probe.models()
                print(welcome(self._probe.url, models, self._elapsed_s()), flush=True)
            self._wait_until_stopped()
        finally:
            self._stop()
        return OK

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._begin

    def _start(self) -> None:
        print(f"Starting the server on {self._probe.url} ...", flush=True)
        try:
            self._server.start()
        except SystemExit:  # Ray's own handler, which it installs while it starts
            self._signals.note()
        self._signals.install()
        self._descendants.look()

    def _wait_until_ready(self) -> None:
        while not (self._signals.requested or self._probe.alive()):
            failure = self._server.failure()
            if failure is not None:
                raise LaunchError(failure)
            if self._elapsed_s() > START_DEADLINE_S:
                raise LaunchError(f"The server is not ready after {START_DEADLINE_S:.0f} s.")
            time.sleep(POLL_S)

    def _wait_until_stopped(self) -> None:
        while not self._signals.requested:
            if lost := self._descendants.lost():
                raise LaunchError(f"Ray's process '{lost[0]}' has ended unexpectedly.")
            time.sleep(POLL_S)

    def _stop(self) -> None:
        """End everything in order, but in bounded time."""
        self._descendants.look()
        deadline = threading.Timer(STOP_DEADLINE_S, self._end_at_once, (FAILED,))
        deadline.daemon = True
        deadline.start()
        complete = self._server.stop()
        self._descendants.end(GRACE_S if complete else 0)
        deadline.cancel()

    def _end_at_once(self, status: int) -> None:
        """Kill every process of the server, this one included."""
        self._descendants.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(status)
