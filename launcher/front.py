"""The front: an HAProxy of our own before Serve's proxy, which is the only one clients reach.

`front.cfg` says what it does. Here is its process, and what is asked of it while it runs: to let
requests in or not, and how many are being answered.
"""

from __future__ import annotations

import csv
import ctypes
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from launcher.errors import LaunchError

CONFIGURATION = Path(__file__).with_name("front.cfg")
START_S = 10.0
ANSWER_S = 5.0
"""A front that does not answer its owner for so long does not answer clients either."""
POLL_S = 0.02
OPEN = "set server serve/serve state ready"
SHUT = "set server serve/serve state drain"
STATISTICS = "show stat serve 2 -1"
"""The line of the backend alone."""
PR_SET_PDEATHSIG = 1
C_LIBRARY = ctypes.CDLL(None)
"""Loaded here, because between fork and exec nothing may be."""


class Front:
    """Listens on `host`:`port` and passes on to `server_port` of this machine.

    `binary` is HAProxy's; the socket through which it is ruled lies in `folder`.
    """

    def __init__(self, binary: str, host: str, port: int, server_port: int, folder: Path) -> None:
        self._command = [binary, "-db", "-f", str(CONFIGURATION)]
        self._socket = folder / "front.sock"
        self._log = folder / "front.log"
        self._variables = {
            "FRONT_BIND": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "FRONT_SERVER": f"127.0.0.1:{server_port}",
            "FRONT_SOCKET": str(self._socket),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._state = SHUT

    def start(self) -> None:
        """Listen; until `open`, requests are answered 503.

        Raises LaunchError with HAProxy's own words if it does not run.
        """
        shut = {"FRONT_SHUT": "1"} if self._state == SHUT else {}
        with self._log.open("ab") as log:
            # A group of its own: Ctrl-C in a terminal must not end what has to be drained.
            self._process = subprocess.Popen(  # noqa: S603
                self._command, env=os.environ | self._variables | shut, process_group=0,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_end_with_parent,
            )  # fmt: skip
        end = time.monotonic() + START_S
        while not self._obeys():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise LaunchError(f"HAProxy does not run: {_last_alert(self._log)}")
            time.sleep(POLL_S)

    def open(self) -> None:
        """Let requests in; one that has ended does when it is started again."""
        self._state = OPEN
        self._obeys()

    def shut(self) -> None:
        """Answer new requests with 503 from now on; those under way go on."""
        self._state = SHUT
        self._obeys()

    def revive(self) -> bool:
        """Start it again if it has ended or hangs; whether that was needed.

        Raises LaunchError or OSError if it does not start; it may be tried again.
        """
        if self._process is not None and self._process.poll() is None and self._obeys():
            return False
        self.stop()
        self.start()
        return True

    def _obeys(self) -> bool:
        """Whether it does what its owner asks: to be in the state that it shall be in."""
        with suppress(OSError):
            self._ask(self._state)
            return True
        return False

    def in_flight(self) -> int:
        """Requests being answered. 0 if it has ended, and they with it."""
        with suppress(OSError):
            rows = list(csv.DictReader(self._ask(STATISTICS).removeprefix("# ").splitlines()))
            return sum(int(row["scur"]) + int(row["qcur"]) for row in rows)
        return 0

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _ask(self, command: str) -> str:
        """One command of HAProxy's runtime API. Raises OSError."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\n".encode())
            answer = b""
            while piece := connection.recv(1 << 16):
                answer += piece
        return answer.decode()


def _end_with_parent() -> None:
    """Linux: be killed when the launcher is, however it ends."""
    C_LIBRARY.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _last_alert(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if "[ALERT]" in line]
    return lines[0].partition(": ")[2] if lines else "it says nothing."
