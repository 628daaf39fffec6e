"""Server-sent events: the only place that knows `data:` and `[DONE]`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from starlette.responses import StreamingResponse

from deployments.ingress.errors import StreamFailure, ending_with_failure
from deployments.ingress.schemas import CompletionUsage

HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
DONE = b"data: [DONE]\n\n"


class Envelope:
    """Makes the events of one stream of chunks.

    Chunks differ only in their choice, so that the rest is serialised once for all of them.
    """

    def __init__(self, shared: Mapping[str, Any]) -> None:
        self._head = b"data: " + orjson.dumps({**shared, "choices": []}).removesuffix(b"]}")

    def chunk(self, choice: Mapping[str, Any]) -> bytes:
        """The event with one choice."""
        return b"%b%b]}\n\n" % (self._head, orjson.dumps(choice))

    def usage(self, usage: CompletionUsage) -> bytes:
        """The event without choices that tells the usage of all of them."""
        return b'%b],"usage":%b}\n\n' % (self._head, usage.model_dump_json().encode())


async def event_stream(groups: AsyncGenerator[bytes]) -> StreamingResponse:
    """Stream groups of events; those of one group travel in one write.

    The first group is awaited before the 200 is sent, so what fails earlier raises here and becomes
    a JSON error. What fails later ends the stream with an error event and without `[DONE]`.
    """
    first = await anext(groups, b"")
    return StreamingResponse(_frames(first, groups), 200, HEADERS, "text/event-stream")


async def _frames(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for group in ending_with_failure(rest):
            if isinstance(group, StreamFailure):
                yield b"data: %b\n\n" % orjson.dumps(group)
                return
            if group:
                yield group
        yield DONE
