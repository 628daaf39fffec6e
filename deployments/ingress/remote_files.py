"""Files from URLs that clients name, where the operator allows it.

Every address of a host must be public, the connection goes to the address that was checked, and
every redirect starts over, so that no answer of a server or of a name service leads inside. What
went wrong on the way is not told apart: the client must not learn what listens where.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from deployments.ingress.public_addresses import IsAllowed, is_public, resolve
from models.errors import InvalidInputError

MAX_REDIRECTS = 3
MAX_URL_CHARS = 2048
REDIRECTS = {301, 302, 303, 307, 308}
HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "inference-server"}
RESOLVERS = ThreadPoolExecutor(16, thread_name_prefix="resolve-host")
"""Threads of their own: a name that takes long to resolve, whose request may be over before, holds
up other URLs only."""


class RemoteFiles:
    """Fetches over http and https, at most `max_bytes` within `seconds`, redirects included."""

    def __init__(self, *, max_bytes: int, seconds: float, allowed: IsAllowed = is_public) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._allowed = allowed

    async def fetch(self, url: str, param: str) -> bytes:
        """The file. Raises InvalidInputError, with `param` as the field at fault."""
        try:
            async with asyncio.timeout(self._seconds):
                target = _checked(url)
                for _ in range(MAX_REDIRECTS + 1):
                    answer = await self._get(target, param)
                    if isinstance(answer, bytes):
                        return answer
                    target = answer
        except (TimeoutError, OSError, ValueError, aiohttp.ClientError):
            pass
        raise InvalidInputError("The URL could not be fetched.", param)

    async def _get(self, url: URL, param: str) -> bytes | URL:
        """The body, or where a redirect leads to."""
        host, port = url.host or "", url.port or 0
        loop = asyncio.get_running_loop()
        addresses = await loop.run_in_executor(RESOLVERS, resolve, host, port, self._allowed)
        if not addresses:
            raise ValueError("not a public host")
        connector = aiohttp.TCPConnector(resolver=_Resolved(addresses), force_close=True)
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.get(url, headers=HEADERS, allow_redirects=False) as response,
        ):
            if response.status in REDIRECTS:
                return _checked(str(url.join(URL(response.headers.get("location", "")))))
            if response.status != 200 or "content-encoding" in response.headers:
                raise ValueError("no file")
            return await self._body(response, param)

    async def _body(self, response: aiohttp.ClientResponse, param: str) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._max_bytes:
                message = (
                    f"The file at the URL is larger than the limit of {self._max_bytes} bytes."
                )
                raise InvalidInputError(message, param)
        return bytes(body)


class _Resolved(AbstractResolver):
    """Answers with the addresses that were checked, whatever the name service says by now.

    The client asks only for names; a host that is an address was checked and is what it says.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        return None


def _checked(url: str) -> URL:
    """Raises ValueError for what is no plain http or https URL."""
    if len(url) > MAX_URL_CHARS:
        raise ValueError("too long")
    parsed = URL(url)
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.port is None:
        raise ValueError("not http")
    if parsed.user is not None or parsed.password is not None:
        raise ValueError("names a user")
    return parsed
