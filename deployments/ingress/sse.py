"""Server-sent events: the only place that knows `data:` and `[DONE]`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import orjson
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from deployments.ingress.errors import StreamFailure, ending_with_failure

Events = Sequence[BaseModel]
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
DONE = "data: [DONE]\n\n"


async def event_stream(groups: AsyncGenerator[Events]) -> StreamingResponse:
    """Stream groups of events; those of one group travel in one write.

    The first group is awaited before the 200 is sent, so what fails earlier raises here and becomes
    a JSON error. What fails later ends the stream with an error event and without `[DONE]`.
    """
    first = await anext(groups, ())
    return StreamingResponse(_frames(first, groups), 200, HEADERS, "text/event-stream")


async def _frames(first: Events, rest: AsyncGenerator[Events]) -> AsyncIterator[str]:
    async with aclosing(rest):
        yield _frame(first)
        async for group in ending_with_failure(rest):
            if isinstance(group, StreamFailure):
                yield f"data: {orjson.dumps(group).decode()}\n\n"
                return
            yield _frame(group)
        yield DONE


def _frame(events: Events) -> str:
    return "".join(f"data: {event.model_dump_json(exclude_unset=True)}\n\n" for event in events)
