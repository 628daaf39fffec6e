"""The HTTP application: clients in, ASGI application out. Knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from deployments.ingress.access.gate import Gate, check_allowed, may_use
from deployments.ingress.bodies import BodyDeadline, read_json
from deployments.ingress.errors import ErrorBoundary
from deployments.ingress.keep_alive import KeepingAlive, keep_alive_of
from deployments.ingress.observing.observer import Observer
from deployments.ingress.observing.request_record import note_route
from deployments.ingress.observing.wake_watch import WakeWatch
from deployments.ingress.routes import (
    anomaly,
    chat,
    classification,
    classifiers,
    cohere_embed,
    completions,
    decisions,
    documents,
    embeddings,
    files,
    health,
    metrics,
    model_control,
    models,
    moderations,
    ner,
    ocr,
    ocr_clients,
    rerank,
    score,
    tei,
    tokenization,
)
from deployments.ingress.routes.docs import docs_endpoints
from deployments.ingress.server import Endpoint, Server, running_replicas
from deployments.ingress.slow_readers import UnreadDeadline

TASK_ENDPOINTS: tuple[Endpoint, ...] = (
    *chat.ENDPOINTS,
    *completions.ENDPOINTS,
    *tokenization.ENDPOINTS,
    *embeddings.ENDPOINTS,
    *cohere_embed.ENDPOINTS,
    *tei.ENDPOINTS,
    *rerank.ENDPOINTS,
    *score.ENDPOINTS,
    *classification.ENDPOINTS,
    *ner.ENDPOINTS,
    *classifiers.ENDPOINTS,
    *moderations.ENDPOINTS,
    *decisions.ENDPOINTS,
    *ocr.ENDPOINTS,
    *ocr_clients.ENDPOINTS,
    *documents.ENDPOINTS,
    *files.ENDPOINTS,
    *anomaly.ENDPOINTS,
    # Before the models, whose ids may be anything: a 405 names the methods of the first that fits.
    *model_control.ENDPOINTS,
    *models.ENDPOINTS,
    *health.ENDPOINTS,
    *metrics.ENDPOINTS,
)


@cache
def all_endpoints() -> tuple[Endpoint, ...]:
    """Every route of the server, the descriptions of the routes included."""
    return (*TASK_ENDPOINTS, *docs_endpoints(TASK_ENDPOINTS))


def make_app(server: Server) -> ASGIApp:
    """The application of one ingress replica."""
    paths: dict[str, list[Endpoint]] = {}
    for endpoint in all_endpoints():
        paths.setdefault(endpoint.path, []).append(endpoint)
    routes = [_route(server, path, endpoints) for path, endpoints in paths.items()]
    # A bare router: Starlette's own error middleware would answer before the boundary does, and
    # /v1/models/ must not answer with a redirect that loses the body of a POST.
    router = BodyDeadline(Router(routes, redirect_slashes=False), server.config.deadlines.body_s)
    bounded = ErrorBoundary(Gate(router, server.config.access))
    answered = UnreadDeadline(bounded, server.config.deadlines.unread_s)
    return Observer(answered, server.metrics, WakeWatch(partial(running_replicas, server.cluster)))


def _route(server: Server, path: str, endpoints: list[Endpoint]) -> Route:
    """One route for all methods of a path, so that a 405 names them all."""
    handlers: dict[str, Callable[[Request], Awaitable[Response]]] = {
        endpoint.method: _handler(server, endpoint) for endpoint in endpoints
    }

    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, handle, methods=list(handlers))


def _handler(server: Server, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    limits = server.config.limits
    max_bytes = limits.max_upload_bytes if endpoint.uploads else limits.max_body_bytes

    async def handle(request: Request) -> Response:
        note_route(endpoint.name)
        check_allowed(endpoint.name, endpoint.tag)
        body: Any = None
        if endpoint.reader is not None:
            body = await endpoint.reader(server, request)
        elif endpoint.body is not None:
            body = await read_json(request, endpoint.body, max_bytes)
        seconds = keep_alive_of(request, body)
        if not may_use(model_control.TAG):  # others use the model too
            seconds = None
        reply = await endpoint.handler(server, request, body)
        answer = _answer(reply) if isinstance(reply, BaseModel) else reply
        return answer if seconds is None else KeepingAlive(answer, server.clients, seconds)

    return handle


def _answer(reply: BaseModel) -> Response:
    return Response(reply.model_dump_json(by_alias=True), media_type="application/json")
