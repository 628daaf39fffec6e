"""GET /metrics: what Ray exports of this node, as far as it is ours or Serve's."""

from __future__ import annotations

import asyncio

import aiohttp
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.ingress.errors import error_body
from deployments.ingress.server import Endpoint, Server

PREFIXES = ("ray_inference_", "ray_serve_")
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FETCH_S = 5.0
RETRY_AFTER = "10"


async def metrics(server: Server, request: Request, body: None) -> Response:
    """Give this node's figures in Prometheus's text format; they are up to ten seconds old."""
    del request, body
    url = await asyncio.to_thread(server.cluster.metrics_url)
    if url is None:
        return _unavailable()
    try:
        exported = await _fetched(url)
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        return _unavailable()
    return Response(ours(exported), media_type=MEDIA_TYPE)


def _unavailable() -> Response:
    message = "The metrics of this node are not available."
    body = error_body(message, "service_unavailable_error", None, "metrics_unavailable")
    return JSONResponse(body, 503, {"retry-after": RETRY_AFTER})


async def _fetched(url: str) -> str:
    timeout = aiohttp.ClientTimeout(total=FETCH_S)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as reply:
        reply.raise_for_status()
        return await reply.text("utf-8")


def ours(exported: str) -> str:
    """The lines, comments included, of metrics that are this server's or Serve's."""
    kept = [
        line
        for line in exported.splitlines()
        if line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(PREFIXES)
    ]
    return "\n".join([*kept, ""])


ENDPOINTS = (Endpoint("GET", "/metrics", metrics, "health"),)
