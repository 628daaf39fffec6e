"""Which network addresses a client may make this server talk to: those that everybody can reach."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
IsAllowed = Callable[[Address], bool]

TRANSLATED = [
    ipaddress.IPv6Network(network)
    for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
]
"""IPv6 networks whose addresses stand for IPv4 ones, wherever those lead (RFC 6052, 8215, 3056,
4380, 4291)."""


def is_public(address: Address) -> bool:
    """Whether the address is one of the Internet's, in no way that leads back inside."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in TRANSLATED):
            return False
    return address.is_global and not address.is_multicast


def resolve(host: str, port: int, is_allowed: IsAllowed) -> list[str]:
    """All addresses of a host, as the system resolves names and odd numbers. Blocking.

    Empty if there are none, or if one of them is not allowed: a name with one public and one
    private address is a trick.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not all(_allowed(address, is_allowed) for address in addresses):
        return []
    return addresses


def _allowed(address: str, is_allowed: IsAllowed) -> bool:
    try:
        return is_allowed(ipaddress.ip_address(address))
    except ValueError:  # with a zone, which only link-local addresses have
        return False
