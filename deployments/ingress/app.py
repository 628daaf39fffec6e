"""The HTTP application: clients in, ASGI application out. Knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from deployments.ingress.bodies import read_json
from deployments.ingress.errors import ErrorBoundary, RequestRefused, error_response
from deployments.ingress.routes import (
    anomaly,
    chat,
    completions,
    embeddings,
    health,
    models,
    ocr,
    rerank,
)
from deployments.ingress.routes.docs import docs_endpoints
from deployments.ingress.server import Endpoint, Server

TASK_ENDPOINTS: tuple[Endpoint, ...] = (
    *chat.ENDPOINTS,
    *completions.ENDPOINTS,
    *embeddings.ENDPOINTS,
    *rerank.ENDPOINTS,
    *ocr.ENDPOINTS,
    *anomaly.ENDPOINTS,
    *models.ENDPOINTS,
    *health.ENDPOINTS,
)


def all_endpoints() -> tuple[Endpoint, ...]:
    """Every route of the server, the descriptions of the routes included."""
    return (*TASK_ENDPOINTS, *docs_endpoints(TASK_ENDPOINTS))


def make_app(server: Server) -> ASGIApp:
    """The application of one ingress replica."""
    starlette = Starlette(
        routes=[_route(server, endpoint) for endpoint in all_endpoints()],
        exception_handlers={HTTPException: _refused},
    )
    # /v1/models/ must not answer with a redirect that loses the body of a POST.
    starlette.router.redirect_slashes = False
    return ErrorBoundary(starlette)


def _route(server: Server, endpoint: Endpoint) -> Route:
    return Route(endpoint.path, _asgi_handler(server, endpoint), methods=[endpoint.method])


def _asgi_handler(server: Server, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    limits = server.config.limits
    max_bytes = limits.max_upload_bytes if endpoint.uploads else limits.max_body_bytes

    async def handle(request: Request) -> Response:
        body = None
        if endpoint.body is not None:
            body = await read_json(request, endpoint.body, max_bytes)
        reply = await endpoint.handler(server, request, body)
        if isinstance(reply, BaseModel):
            content = reply.model_dump_json(by_alias=True)
            return Response(content, media_type="application/json")
        return reply

    return handle


async def _refused(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, wrong method."""
    if isinstance(error, RequestRefused) or not isinstance(error, HTTPException):
        return error_response(error)
    method, path = request.method, request.url.path[:200]
    messages = {404: f"No route {path}.", 405: f"{method} is not allowed on {path}."}
    message = messages.get(error.status_code, error.detail)
    refusal = RequestRefused(error.status_code, message)
    refusal.headers = error.headers
    return error_response(refusal)
