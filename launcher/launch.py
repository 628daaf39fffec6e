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
from launcher.front import Front
from launcher.probe import HttpProbe
from launcher.ray_server import RayServer
from launcher.stop_signals import StopSignals
from launcher.supervisor import Supervisor
from launcher.welcome import welcome

OK, FAILED, ENDED_AT_ONCE = 0, 1, 130
START_DEADLINE_S = 300.0
STOP_DEADLINE_S = 60.0
GRACE_S = 10.0
"""What Ray's processes may take to end after it has been shut down."""
PROBES, PROBE_S = 12, 0.1
"""For more than a second: Serve replaces its HAProxy within 0.7 of the first answer."""
POLL_S = 0.2


class Launch:
    """Runs a server in the foreground; `folder` is removed even if it has to end at once.

    Clients reach it at `url`: the front, or Serve itself where HAProxy does not run (`front` is
    None, and nothing drains). `probe` asks Serve. `drain_s` bounds how long requests under way may
    keep a server that shall end.
    """

    def __init__(
        self, server: RayServer, front: Front | None, url: str, probe: HttpProbe,
        descendants: Descendants, folder: Path, drain_s: float,
    ) -> None:  # fmt: skip
        self._server = server
        self._front = front
        self._url = url
        self._drain_s = drain_s
        self._probe = probe
        self._descendants = descendants
        self._folder = folder
        self._supervisor = Supervisor(front, descendants)
        self._begin = time.monotonic()
        self._signals = StopSignals(partial(self._end_at_once, ENDED_AT_ONCE))

    def run(self) -> int:
        """Raises LaunchError when the server cannot run; nothing is left running then either."""
        self._signals.install()
        try:
            self._start()
            self._wait_until_ready()
            if not self._signals.requested:
                self._say_it_is_ready()
            self._wait_until_stopped()
            self._drain()
        finally:
            self._stop()
        return OK

    def _say_it_is_ready(self) -> None:
        if self._front is not None:
            self._front.open()
        print(welcome(self._url, self._probe.models(), self._elapsed_s()), flush=True)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._begin

    def _start(self) -> None:
        print(f"Starting the server on {self._url} ...", flush=True)
        if self._front is not None:
            self._front.start()  # first: from now on clients are told that it starts
        try:
            self._server.start()
        except SystemExit:  # Ray's own handler, which it installs while it starts
            self._signals.note()
        self._signals.install()
        self._descendants.look()

    def _wait_until_ready(self) -> None:
        while not (self._signals.requested or self._serves()):
            self._supervisor.check()
            failure = self._server.failure()
            if failure is not None:
                raise LaunchError(failure)
            if self._elapsed_s() > START_DEADLINE_S:
                raise LaunchError(f"The server is not ready after {START_DEADLINE_S:.0f} s.")
            time.sleep(POLL_S)

    def _serves(self) -> bool:
        """Once is not enough: Serve's HAProxy is replaced when the application is there. Until then
        the one before answers, by way of Serve's own proxy, and what has reached it is lost when it
        ends; for a moment both listen."""
        for _ in range(PROBES):
            if not self._probe.alive():
                return False
            time.sleep(PROBE_S)
        return True

    def _wait_until_stopped(self) -> None:
        while not self._signals.requested:
            self._supervisor.check()
            time.sleep(POLL_S)

    def _drain(self) -> None:
        """Take no new requests, and wait for those under way."""
        if self._front is None:
            return
        self._front.shut()
        end = time.monotonic() + self._drain_s
        while self._front.in_flight() > 0 and time.monotonic() < end:
            time.sleep(POLL_S)

    def _stop(self) -> None:
        """End everything in order, but in bounded time."""
        self._descendants.look()
        deadline = threading.Timer(STOP_DEADLINE_S, self._end_at_once, (FAILED,))
        deadline.daemon = True
        deadline.start()
        complete = False
        try:
            complete = not self._supervisor.gave_up and self._server.stop()
        finally:
            if self._front is not None:
                self._front.stop()  # last: until now clients were told that it ends
            self._descendants.end(GRACE_S if complete else 0)
            deadline.cancel()

    def _end_at_once(self, status: int) -> None:
        """Kill every process of the server, this one included."""
        self._descendants.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(status)
