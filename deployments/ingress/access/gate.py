"""Who is let in: everything but liveness and the open routes needs a key once keys are configured.

The gate stands before the router, so that who has no key learns nothing of the routes: not which
paths there are, nor which methods they take. It decides by the path that the router will see.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from config.access import LIVENESS, AccessSettings, ApiKey
from deployments.ingress.access.hosts import check_hosts
from deployments.ingress.access.key_ring import KeyRing
from deployments.ingress.access.rate_limits import Allowance
from deployments.ingress.errors import RequestRefused
from models.errors import OverloadedError

CHALLENGE = {"www-authenticate": 'Bearer realm="inference"'}
BEARER = b"bearer "
KEY_HEADERS = (b"x-api-key", b"api-key", b"ocp-apim-subscription-key")
"""Anthropic's and many others', Azure OpenAI's, and that of Azure's Anomaly Detector."""

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request this is, and what the key has left."""

    key: ApiKey
    allowance: Allowance


_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def caller_name() -> str | None:
    """The name of the key that the running request came with; None: no keys are configured."""
    caller = _caller.get()
    return None if caller is None else caller.key.name


def spend(tokens: int) -> None:
    """Count tokens against the key of the running request."""
    caller = _caller.get()
    if caller is not None:
        caller.allowance.spend(tokens)


def check_allowed(path: str, tag: str) -> None:
    """Raises RequestRefused (403) where the key of the running request excludes a route."""
    if not may_use(path, tag):
        logger.info("The key '%s' may not use %s.", caller_name(), path)
        raise RequestRefused(403, "This API key may not use this route.")


def may_use(*names: str) -> bool:
    """Whether the key of the running request has one of these tags and paths."""
    caller = _caller.get()
    if caller is None or caller.key.allow is None:
        return True
    return not caller.key.allow.isdisjoint(map(str.lower, names))


class Gate:
    """Refuses what names another host, or comes without a key."""

    def __init__(self, app: ASGIApp, settings: AccessSettings) -> None:
        self._app = app
        self._hosts = frozenset(map(str.lower, settings.allowed_hosts))
        self._open = frozenset({LIVENESS, *settings.open_routes})
        self._ring = KeyRing(settings.keys_file)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the server's own start and end
            await self._app(scope, receive, send)
            return
        check_hosts([v for name, v in scope["headers"] if name == b"host"], self._hosts)
        if not self._ring.requires_key or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        await self._ring.refresh()
        token = _caller.set(self._admitted(scope))
        try:
            await self._app(scope, receive, send)
        finally:
            _caller.reset(token)

    def _is_open(self, scope: Scope) -> bool:
        return scope["method"] in {"GET", "HEAD"} and scope["path"] in self._open

    def _admitted(self, scope: Scope) -> Caller:
        """Raises RequestRefused (401), and OverloadedError when the key has nothing left."""
        presented = presented_key(scope)
        key = None if presented is None else self._ring.find(presented)
        if key is None:
            what = "needs an API key" if presented is None else "came with no valid API key"
            raise RequestRefused(401, f"This request {what}.", headers=CHALLENGE)
        allowance = self._ring.allowance(key)
        try:
            allowance.admit()
        except OverloadedError:
            logger.info("The key '%s' has reached its limit.", key.name)
            raise
        return Caller(key, allowance)


def presented_key(scope: Scope) -> bytes | None:
    """The key that a request came with, in whichever header."""
    headers = dict(reversed(scope["headers"]))
    authorization = headers.get(b"authorization", b"")
    if authorization[: len(BEARER)].lower() == BEARER:
        return bytes(authorization[len(BEARER) :].strip())
    for name in KEY_HEADERS:
        if name in headers:
            return bytes(headers[name].strip())
    return None
