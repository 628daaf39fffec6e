"""TCP ports of this machine."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import ExitStack, suppress

from launcher.errors import LaunchError

MEANINGS = {
    errno.EADDRINUSE: "is in use by another program",
    errno.EACCES: "needs more rights than you have",
    errno.EADDRNOTAVAIL: "cannot be used: this machine does not have that address",
}

QUIET = range(20_000, 32_000)
"""Above those of Ray and its workers (https://docs.ray.io/en/latest/ray-core/configure.html), below
those that a system gives to whoever asks for any: what is free there stays free until it is used.
"""


def require_free(host: str, port: int) -> None:
    """Raises LaunchError, with what to do about it, unless a server can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            meaning = MEANINGS.get(error.errno or 0, f"cannot be used: {error.strerror}")
            message = f"Port {port} on {host} {meaning}. Choose another: make serve PORT=8001"
            raise LaunchError(message) from error


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different, nor takes by chance in the next minutes."""
    chance = random.SystemRandom()  # another server may choose at the same time
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            listener = held.enter_context(socket.socket())
            with suppress(OSError):  # somebody listens there
                listener.bind(("", port := chance.choice(QUIET)))
                found.append(port)
    return found
