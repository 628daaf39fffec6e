"""The outermost ASGI application: one log line and the metrics of every request."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.ingress.observing.request_record import (
    CLIENT_LEFT,
    NONE,
    RequestRecord,
    recording,
)
from deployments.ingress.observing.wake_watch import WakeWatch
from deployments.metrics import catalog
from deployments.metrics.catalog import Metrics

QUIET_ROUTES = frozenset({"/health", "/ready", "/metrics"})
"""Asked every few seconds by machines: their lines are for debugging."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

logger = logging.getLogger("ray.serve")


class Observer:
    """Knows of a request what `RequestRecord` does."""

    def __init__(self, app: ASGIApp, metrics: Metrics, watch: WakeWatch) -> None:
        self._app = app
        self._metrics = metrics
        self._watch = watch
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(self._watch.begun)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                record.answered = time.monotonic()
            await send(message)

        self._count(1)
        try:
            with recording(record):
                await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            record.status = CLIENT_LEFT
            raise
        finally:
            record.status = record.status or CLIENT_LEFT
            self._count(-1)
            self._watch.ended(record)
            self._report(scope, record)

    def _count(self, change: int) -> None:
        self._in_flight += change
        self._metrics.set(catalog.IN_FLIGHT, self._in_flight)

    def _report(self, scope: Scope, record: RequestRecord) -> None:
        seconds = time.monotonic() - record.begun
        labels = {"task": record.task, "model": record.model}
        status = str(record.status)
        self._metrics.add(catalog.REQUESTS, 1, **labels, route=record.route, status=status)
        if record.code:
            self._metrics.add(catalog.ERRORS, 1, **labels, code=record.code)
        if record.task != NONE:
            self._metrics.observe(catalog.DURATION, seconds, **labels)
            self._report_tokens(record, labels)
        if record.woke and record.answered:
            self._metrics.observe(catalog.WAKE_SECONDS, record.answered - record.begun, **labels)
        _log(scope, record, seconds)

    def _report_tokens(self, record: RequestRecord, labels: dict[str, str]) -> None:
        self._metrics.add(catalog.PROMPT_TOKENS, record.prompt_tokens, **labels)
        self._metrics.add(catalog.COMPLETION_TOKENS, record.completion_tokens, **labels)
        self._metrics.add(catalog.CACHED_TOKENS, record.cached_tokens, **labels)
        if record.first_text:
            to_first = record.first_text - record.begun
            self._metrics.observe(catalog.TIME_TO_FIRST_TOKEN, to_first, **labels)
        if record.inter_token_s is not None:
            self._metrics.observe(catalog.INTER_TOKEN_LATENCY, record.inter_token_s, **labels)


def _log(scope: Scope, record: RequestRecord, seconds: float) -> None:
    """The template of the route and not the path, which clients write."""
    level = logging.DEBUG if record.route in QUIET_ROUTES else logging.INFO
    if not logger.isEnabledFor(level):
        return
    fields = {
        "request_id": _request_id(scope),
        "method": scope["method"] if scope["method"] in METHODS else NONE,
        "http_route": record.route,
        "task": record.task,
        "model": record.model,
        "status": record.status,
        "code": record.code,
        "duration_ms": round(1000 * seconds, 1),
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        # Serve would look up ten ids of the process for every line, which doubles what it costs.
        "skip_context_filter": True,
    }
    logger.log(level, "%s %s %d", fields["method"], record.route, record.status, extra=fields)


def _request_id(scope: Scope) -> str:
    """The one that the answer has; the boundary has put it there if the client had not."""
    ids = (value for name, value in scope["headers"] if name == b"x-request-id")
    return next(ids, b"").decode("latin-1")
