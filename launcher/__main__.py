"""`python -m launcher`: start the server, say where it is, end it cleanly."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from launcher.configuration import Document, read_config
from launcher.descendants import Descendants
from launcher.edge import (
    PORTS,
    haproxy_available,
    haproxy_wanted,
    private_variables,
    without_haproxy,
)
from launcher.errors import LaunchError
from launcher.ports import free_ports, require_free
from launcher.private_folder import private_folder, ray_variables, write_token
from launcher.probe import HttpProbe
from launcher.ray_server import RayServer
from launcher.stop_signals import StopSignals
from launcher.terminal import own_foreground_group
from launcher.welcome import welcome

ROOT = Path(__file__).parents[1]
OK, FAILED, ENDED_AT_ONCE = 0, 1, 130
START_DEADLINE_S = 300.0
STOP_DEADLINE_S = 60.0
GRACE_S = 10.0
"""What Ray's processes may take to end after it has been shut down."""
POLL_S = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until stopped. Exit status 0 after Ctrl-C or SIGTERM, 1 if the server cannot run."""
    options = _parser().parse_args(arguments)
    begin = time.monotonic()
    try:
        document = read_config(options.config, options.port)
        http = document["http_options"]
        require_free(http["host"], http["port"])
        with own_foreground_group(), private_folder() as folder:
            return Launch(_prepared(document, folder), folder, begin).run()
    except LaunchError as error:
        print(error, file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launcher", description=__doc__)
    parser.add_argument("--port", type=_port, help="port to listen on (default: the file's)")
    parser.add_argument(
        "--config", type=Path, default=ROOT / "serve_config.yaml", metavar="FILE",
        help="Serve configuration (default: %(default)s)",
    )  # fmt: skip
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 1 << 16:
        raise argparse.ArgumentTypeError(f"{port} is not a port (1 to 65535)")
    return port


def _prepared(document: Document, folder: Path) -> Document:
    """The document for this machine; the environment of all processes to come is set."""
    os.environ.update(ray_variables(write_token(folder)))
    if not haproxy_wanted(document):
        return document
    if not haproxy_available():
        print("HAProxy does not run here: using Serve's own proxy, which is slower.")
        return without_haproxy(document)
    os.environ.update(private_variables(folder, free_ports(len(PORTS))))
    return document


class Launch:
    """One server from start to end."""

    def __init__(self, document: Document, folder: Path, begin: float) -> None:
        self._folder = folder
        http = document["http_options"]
        self._probe = HttpProbe(http["host"], http["port"])
        self._server = RayServer(document)
        self._begin = begin
        self._descendants = Descendants()
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


if __name__ == "__main__":
    sys.exit(main())
