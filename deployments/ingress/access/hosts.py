"""Which Host headers are answered: a page of a stranger's must not reach this server by a name that
its owner points at it (DNS rebinding). An address in the header cannot be such a name."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from deployments.ingress.errors import RequestRefused

ANY = "*"


def check_hosts(values: Collection[bytes], allowed: Collection[str]) -> None:
    """Raises RequestRefused (421) unless every Host header names this server."""
    if ANY in allowed:
        return
    if not values or not all(_ours(host_name(value), allowed) for value in values):
        message = "This server is not known by the host name of this request."
        raise RequestRefused(421, f"{message} Its operator can add names to access.allowed_hosts.")


def _ours(name: str, allowed: Collection[str]) -> bool:
    return name in allowed or name == "localhost" or name.endswith(".localhost") or _address(name)


def _address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def host_name(value: bytes) -> str:
    """A Host header without its port, in lower case."""
    text = value.decode("latin-1").strip().lower()
    head, colon, port = text.rpartition(":")
    name = head if colon and port.isascii() and port.isdecimal() else text
    return name.removesuffix(".")
