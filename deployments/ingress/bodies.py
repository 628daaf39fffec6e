"""Reading a request's body: media type, size, JSON or form, schema; a refusal names its cause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from pydantic import BaseModel
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.ingress.errors import RequestRefused

BodyT = TypeVar("BodyT", bound=BaseModel)
MAX_FIELDS = 64
FORM = "multipart/form-data"
SLOWEST_BYTES_PER_S = 64 << 10
LENGTH_DIGITS = 18
"""Python refuses to read numbers of thousands."""


def media_type(request: Request) -> str:
    """Of the body, without its parameters; empty when the client does not say."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, schema: type[BodyT], max_bytes: int) -> BodyT:
    """The body as `schema`. Raises RequestRefused (413, 415) or pydantic's ValidationError."""
    if media_type(request) != "application/json":
        raise RequestRefused(415, "The body must be sent as application/json.")
    return schema.model_validate_json(await read_bytes(request, max_bytes))


async def read_bytes(request: Request, max_bytes: int) -> bytes:
    """The whole body, whatever it is. Raises RequestRefused (413, 415)."""
    body = bytearray()
    async for chunk in read_chunks(request, max_bytes):
        body += chunk
    return bytes(body)


@asynccontextmanager
async def read_form(request: Request, max_bytes: int, max_files: int) -> AsyncIterator[FormData]:
    """A multipart form, whose files go to disk while they arrive and are deleted afterwards.

    Raises RequestRefused: 413 beyond a limit of bytes, 400 for what is no form, or has too many
    parts.
    """
    if media_type(request) != FORM:
        raise RequestRefused(415, f"The body must be sent as {FORM}.")
    chunks = read_chunks(request, max_bytes)
    parser = MultiPartParser(request.headers, chunks, max_files=max_files, max_fields=MAX_FIELDS)
    try:
        yield await parser.parse()
    except MultiPartException as error:
        raise RequestRefused(400, error.message[:200]) from None
    finally:
        for file in parser._files_to_close_on_error:  # also one that a cut form left out
            file.close()


async def read_chunks(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body, counted while it arrives, so that chunked bodies are bounded too."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestRefused(415, "Compressed bodies are not accepted.")
    refusal = RequestRefused(413, f"The body is larger than the limit of {max_bytes} bytes.")
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or len(announced) > LENGTH_DIGITS or int(announced) > max_bytes:
        raise refusal
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > max_bytes:
            raise refusal
        yield chunk


class BodyDeadline:
    """Ends requests whose body does not arrive: a second more is given for each 64 KiB that do."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        timed = _in_time(receive, self._seconds) if scope["type"] == "http" else receive
        await self._app(scope, timed, send)


def _in_time(receive: Receive, seconds: float) -> Receive:
    """`receive`, which raises RequestRefused (408) until the body is complete."""
    end = asyncio.get_running_loop().time() + seconds
    complete = False

    async def receive_in_time() -> Message:
        nonlocal end, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            raise RequestRefused(408, "The body did not arrive in time.") from None
        end += len(message.get("body", b"")) / SLOWEST_BYTES_PER_S
        complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return receive_in_time
