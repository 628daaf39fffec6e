"""What becomes of `keep_alive`: the replicas are told once the request has been answered."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.ingress.clients import Clients
from deployments.ingress.errors import RequestRefused
from deployments.ingress.keep_alive_fields import KeepAliveFields, parse_keep_alive
from deployments.ingress.observing.request_record import models_of_request

HEADER = "x-keep-alive"
"""For bodies that are files or forms."""


def keep_alive_of(request: Request, body: Any) -> float | None:
    """Seconds that the request's models are to stay idle, None where the client does not say.

    A field of the body counts more than the header. Raises RequestRefused for a header that is no
    duration.
    """
    fields = body[0] if isinstance(body, tuple) else getattr(body, "options", body)
    if isinstance(fields, KeepAliveFields):
        if fields.keep_alive is not None:
            return fields.keep_alive
        if fields.ttl is not None:
            return fields.ttl
    header = request.headers.get(HEADER)
    if header is None:
        return None
    try:
        return parse_keep_alive(header)
    except ValueError as error:
        raise RequestRefused(400, f"{error} ({HEADER})", HEADER) from None


class KeepingAlive(Response):
    """An answer after whose end, whatever ends it, its request's models stay for some seconds."""

    def __init__(self, answer: Response, clients: Clients, seconds: float) -> None:
        super().__init__()
        self._answer = answer
        self._tell = [(clients.by_task()[task], model_id) for task, model_id in models_of_request()]
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        finally:
            await asyncio.gather(*(client.keep(name, self._seconds) for client, name in self._tell))
