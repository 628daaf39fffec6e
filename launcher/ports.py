"""TCP ports of this machine."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

from launcher.errors import LaunchError

MEANINGS = {
    errno.EADDRINUSE: "is in use by another program",
    errno.EACCES: "needs more rights than you have",
    errno.EADDRNOTAVAIL: "cannot be used: this machine does not have that address",
}


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
    """Ports that nobody listens on, all different."""
    with ExitStack() as held:
        listeners = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("", 0))
        return [listener.getsockname()[1] for listener in listeners]
