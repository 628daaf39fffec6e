"""A port for a server that binds it seconds or minutes after it was chosen."""

from __future__ import annotations

from launcher.ports import free_ports


def quiet_port() -> int:
    [port] = free_ports(1)
    return port
