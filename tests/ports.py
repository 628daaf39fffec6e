"""Ports for servers that bind them seconds or minutes after they were chosen."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

FIRST, LAST = 20_000, 32_000
"""Above those that Ray gives to its workers, below those that a system gives to whoever asks for
any: nobody takes one by chance in the meantime."""


def quiet_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    chance = random.SystemRandom()  # another suite may choose at the same time
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            listener = held.enter_context(socket.socket())
            try:
                listener.bind(("", port := chance.randrange(FIRST, LAST)))
            except OSError:
                continue
            found.append(port)
    return found


def quiet_port() -> int:
    [port] = quiet_ports(1)
    return port
