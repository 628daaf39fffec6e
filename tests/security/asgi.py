"""Requests straight to the application, spelled as they are: no client tidies them up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

JSON = {"content-type": "application/json"}
ERROR_FIELDS = {"message", "type", "param", "code"}
DEADLINE_S = 240.0
"""Generous: machines that run tests may be slow. What hangs, hangs for longer."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


async def call(
    app: ASGIApp,
    method: str,
    target: str,
    body: bytes | AsyncIterator[bytes] = b"",
    headers: Mapping[str, str | bytes] = {},
) -> Reply:
    """The whole answer; fails when the application raises or takes longer than the deadline."""
    path, _, query = target.partition("?")
    pairs = {"host": "127.0.0.1", **headers}
    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), _latin(value)) for name, value in pairs.items()],
    }
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with asyncio.timeout(DEADLINE_S):
        await app(scope, _receiver(body), send)
    answered = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return Reply(sent[0]["status"], answered, content)


def _latin(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


def _receiver(body: bytes | AsyncIterator[bytes]) -> Any:
    chunks = _once(body) if isinstance(body, bytes) else body
    gone = asyncio.Event()

    async def receive() -> Message:
        async for chunk in chunks:
            return {"type": "http.request", "body": chunk, "more_body": not isinstance(body, bytes)}
        if not isinstance(body, bytes) and not gone.is_set():
            gone.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        return await asyncio.Event().wait() and {}  # a client that stays

    return receive


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def assert_error(reply: Reply, status: int | None = None, code: str | None = None) -> Any:
    """The one wire format, a request id, nothing of this machine. Returns the error."""
    assert status is None or reply.status == status, (reply.status, reply.text[:500])
    assert reply.headers["content-type"] == "application/json"
    assert len(reply.headers["x-request-id"]) == 32
    assert len(reply.body) < 4000
    assert set(reply.json()) == {"error"}
    error = reply.json()["error"]
    assert set(error) == ERROR_FIELDS
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["param"] is None or isinstance(error["param"], str)
    assert code is None or error["code"] == code, error
    return error
