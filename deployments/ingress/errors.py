"""From an exception to an answer: the one table of statuses, and the boundary that applies it."""

from __future__ import annotations

import logging
import math
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.ingress.error_texts import presentable
from deployments.ingress.observing.request_record import note_error
from deployments.ingress.validation_errors import explain_validation, is_of_a_request
from models.errors import (
    DeadlineExceededError,
    EngineDeadError,
    FitCancelledError,
    FitCrashedError,
    InputTooLongError,
    InvalidInputError,
    LoadTimeoutError,
    MemoryRefusedError,
    ModelError,
    ModelLoadError,
    ModelNotFoundError,
    OutOfMemoryError,
    OverloadedError,
    ReplicaLostAgainError,
    ReplicaLostError,
    StorageError,
    UnsupportedInputError,
    UnsupportedTaskError,
)

T = TypeVar("T")
logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Answer:
    """How one kind of failure is answered. `retry` false tells clients not to try again."""

    status: int
    type: str
    code: str | None
    retry: bool | None = None


ANSWERS: dict[type[Exception], Answer] = {
    InputTooLongError: Answer(400, "invalid_request_error", "context_length_exceeded"),
    UnsupportedTaskError: Answer(400, "invalid_request_error", "model_not_supported"),
    UnsupportedInputError: Answer(400, "invalid_request_error", "unsupported_input"),
    InvalidInputError: Answer(400, "invalid_request_error", "invalid_value"),
    ModelNotFoundError: Answer(404, "invalid_request_error", "model_not_found"),
    OverloadedError: Answer(429, "rate_limit_error", "rate_limit_exceeded"),
    LoadTimeoutError: Answer(503, "service_unavailable_error", "model_loading"),
    MemoryRefusedError: Answer(503, "service_unavailable_error", "out_of_memory"),
    ModelLoadError: Answer(503, "service_unavailable_error", "model_load_failed"),
    OutOfMemoryError: Answer(503, "service_unavailable_error", "out_of_memory"),
    EngineDeadError: Answer(503, "service_unavailable_error", "engine_died"),
    ReplicaLostAgainError: Answer(500, "server_error", "engine_died", retry=False),
    ReplicaLostError: Answer(503, "service_unavailable_error", "engine_died"),
    DeadlineExceededError: Answer(504, "server_error", "deadline_exceeded", retry=False),
    FitCancelledError: Answer(409, "invalid_request_error", "fit_cancelled"),
    FitCrashedError: Answer(500, "server_error", "fit_crashed", retry=False),
    StorageError: Answer(507, "server_error", "storage_failed", retry=False),
    ModelError: Answer(500, "server_error", "internal_error", retry=False),
}
"""Looked up along the exception's method resolution order, most special class first."""

HTTP_CODES = {
    400: "invalid_value",
    401: "invalid_api_key",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    421: "misdirected_request",
}
REQUEST_ID = re.compile(rb"[\w\-.]{1,64}")
RESTART_SECONDS = 1.0


class RequestRefused(HTTPException):
    """Refused before it reached a schema: too large, not JSON, no such path."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.param = param


def error_body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, object]:
    """The wire format of every failure; whatever the message was made of, it tells no secrets."""
    shown = presentable(message)
    return {"error": {"message": shown, "type": kind, "param": param, "code": code}}


def describe(error: Exception) -> tuple[Answer, dict[str, object]]:
    """The answer and the wire body of any exception; unknown ones say nothing of themselves."""
    if isinstance(error, ValidationError) and is_of_a_request(error):
        answer = ANSWERS[InvalidInputError]
        param, message = explain_validation(error)
        return answer, error_body(message, answer.type, param, answer.code)
    if isinstance(error, HTTPException):
        answer = Answer(
            error.status_code, "invalid_request_error", HTTP_CODES.get(error.status_code)
        )
        param = getattr(error, "param", None)
        return answer, error_body(error.detail, answer.type, param, answer.code)
    if isinstance(error, ModelError):
        answer = next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)
        param = getattr(error, "param", None)
        return answer, error_body(error.message, answer.type, param, answer.code)
    answer = ANSWERS[ModelError]
    message = "The server failed to answer this request."
    return answer, error_body(message, answer.type, None, answer.code)


def error_response(error: Exception) -> Response:
    """The JSON answer to an exception, with Retry-After where trying again can help."""
    answer, body = describe(error)
    note_error(answer.code)
    if answer.status >= 500 and not isinstance(error, ModelError):
        logger.exception("Request failed", exc_info=error)
    headers = dict(getattr(error, "headers", None) or {})
    if answer.status in {429, 503}:
        wait = getattr(error, "retry_after", RESTART_SECONDS)
        headers["retry-after"] = str(max(1, math.ceil(wait)))
    if answer.retry is not None:
        headers["x-should-retry"] = "true" if answer.retry else "false"
    return JSONResponse(body, answer.status, headers)


class ErrorBoundary:
    """The outermost ASGI application: every failure as our JSON, every answer with a request id.

    A bare callable and not a Starlette application, because Serve adds plain-text handlers to any
    application it recognises.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await _refuse_websocket(scope, receive, send)
            return
        added = _request_id(scope)
        body = _Body(scope, receive)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        # Inside an "app" Starlette's router raises its refusals instead of answering plain text.
        scope["app"] = self
        try:
            await self._app(scope, body.receive, send_with_id)
        except ClientDisconnect:
            logger.info("The client left before its request was complete.")
        except Exception as error:
            if started:  # a file that broke off; events of a stream end with the error themselves
                note_error(describe(error)[0].code)
                raise
            answer = error_response(_named(error, scope))
            if not body.complete:  # or the rest would follow, however long it is
                answer.headers["connection"] = "close"
            await answer(scope, receive, send_with_id)


class _Body:
    """Knows whether a request's body has been read to its end."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        chunked = b"transfer-encoding" in headers
        self.complete = not chunked and headers.get(b"content-length", b"0") == b"0"
        self._receive = receive

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.complete = not message.get("more_body", False)
        return message


async def _refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """No route is one: 404, or 403 by servers that know no other way."""
    if "websocket.http.response" in scope.get("extensions", {}):
        refusal = error_response(RequestRefused(404, "This server has no WebSockets."))
        await refusal(scope, receive, send)
    else:
        await send({"type": "websocket.close"})


def _request_id(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The header to answer with, where the client has sent no id that may be repeated.

    Serve answers with the id that it finds or puts into the request; others do not.
    """
    ids = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(ids) == 1 and REQUEST_ID.fullmatch(ids[0]):
        return []
    added = (b"x-request-id", uuid.uuid4().hex.encode())
    scope["headers"] = [h for h in scope["headers"] if h[0] != b"x-request-id"] + [added]
    return [added]


def _named(error: Exception, scope: Scope) -> Exception:
    """The router's refusals say which path and method they refuse."""
    if not isinstance(error, HTTPException) or isinstance(error, RequestRefused):
        return error
    method, path = scope["method"], scope["path"][:200]
    messages = {404: f"No route {path}.", 405: f"{method} is not allowed on {path}."}
    refusal = RequestRefused(error.status_code, messages.get(error.status_code, error.detail))
    refusal.headers = error.headers
    return refusal


class StreamFailure(dict[str, object]):
    """The wire body of the error that ended a stream."""


async def ending_with_failure(items: AsyncIterator[T]) -> AsyncIterator[T | StreamFailure]:
    """The items; an exception becomes one last item instead of a cut connection."""
    try:
        async for item in items:
            yield item
    except Exception as error:
        if not isinstance(error, ModelError):
            logger.exception("Stream failed", exc_info=error)
        answer, body = describe(error)
        note_error(answer.code)
        yield StreamFailure(body)
