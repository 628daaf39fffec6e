"""Reading a request's body: media type, size, JSON, schema; each refusal names what is wrong."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from deployments.ingress.errors import RequestRefused

BodyT = TypeVar("BodyT", bound=BaseModel)


async def read_json(request: Request, schema: type[BodyT], max_bytes: int) -> BodyT:
    """The body as `schema`. Raises RequestRefused (413, 415) or pydantic's ValidationError."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RequestRefused(415, "The body must be sent as application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestRefused(415, "Compressed bodies are not accepted.")
    return schema.model_validate_json(await _read(request, max_bytes))


async def _read(request: Request, max_bytes: int) -> bytes:
    """The whole body, counted while it arrives, so that chunked bodies are bounded too."""
    refusal = RequestRefused(413, f"The body is larger than the limit of {max_bytes} bytes.")
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > max_bytes:
        raise refusal
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise refusal
    return bytes(body)
