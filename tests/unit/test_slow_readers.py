"""Clients that do not take their answer are cut off; slow ones are not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from deployments.ingress.observing.request_record import CLIENT_LEFT, RequestRecord, recording
from deployments.ingress.slow_readers import UnreadDeadline

PIECE = {"type": "http.response.body", "body": b"text", "more_body": True}


class Streaming:
    """An application that streams until it is cancelled."""

    def __init__(self, pieces: int = 1_000_000, error: Exception | None = None) -> None:
        self.pieces, self.error = pieces, error
        self.ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            for _ in range(self.pieces):
                await send(PIECE)
            if self.error is not None:
                raise self.error
        finally:
            self.ended = True


async def run(app: Streaming, seconds: float, send: Send) -> None:
    async def receive() -> Message:
        raise AssertionError("nothing is read")

    scope: dict[str, Any] = {"type": "http"}
    async with asyncio.timeout(30):
        await UnreadDeadline(app, seconds)(scope, receive, send)


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    app, sent = Streaming(), 0

    async def send(message: Message) -> None:
        nonlocal sent
        sent += 1
        if sent == 3:
            await asyncio.Event().wait()

    await run(app, 0.05, send)
    assert app.ended
    assert sent == 3


async def test_a_client_that_takes_piece_after_piece_is_not() -> None:
    app, sent = Streaming(pieces=40), 0

    async def send(message: Message) -> None:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.01)

    await run(app, 10, send)
    assert sent == 40


async def test_computing_for_long_is_not_the_clients_fault() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(PIECE)
        await asyncio.sleep(0.2)
        await send(PIECE)

    pieces: list[Message] = []

    async def send(message: Message) -> None:
        pieces.append(message)

    await UnreadDeadline(app, 0.02)({"type": "http"}, None, send)  # type: ignore[arg-type]
    assert len(pieces) == 2


async def test_other_timeouts_are_what_they_were() -> None:
    async def send(message: Message) -> None:
        return

    with pytest.raises(TimeoutError):
        await run(Streaming(1, TimeoutError()), 10, send)


async def test_who_is_cut_off_counts_as_gone_whatever_the_answer_began_with() -> None:
    async def send(message: Message) -> None:
        await asyncio.Event().wait()

    record = RequestRecord(status=200)
    with recording(record):
        await run(Streaming(), 0.01, send)
    assert (record.status, record.code) == (CLIENT_LEFT, "unread")
