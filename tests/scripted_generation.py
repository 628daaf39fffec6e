"""Replicas that generate by script, and how routes that generate text are asked and read."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from models.types.common import Usage
from models.types.generation import (
    ChoiceDelta,
    Delivery,
    GenerationRequest,
    TextDelta,
    TokenLogprob,
)
from tests.fakes import FakeReplicas, make_client

LOGPROB = TokenLogprob("He", b"He", -0.5, (TokenLogprob("Hi", b"Hi", -1.5),))


def script(*items: Any) -> FakeReplicas:
    """A replica whose `generate` yields the items; an exception is raised in its turn."""

    async def generate(
        session_id: str, call_id: str, model_id: str, requests: list[GenerationRequest]
    ) -> AsyncGenerator[list[Delivery]]:
        yield []
        for item in items:
            if isinstance(item, Exception):
                raise item
            deltas = tuple(ChoiceDelta(index, delta) for index, delta in item)
            yield [Delivery(call_id, deltas)]

    return FakeReplicas(streams={"generate": generate})


HELLO = (
    [(0, TextDelta("He", (LOGPROB,)))],
    [(0, TextDelta("llo"))],
    [(0, TextDelta("", finish_reason="stop", usage=Usage(7, 2, 3)))],
)
CHAT = {"model": "chat-model", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "chat-model", "prompt": "hi"}


def post(replicas: FakeReplicas, path: str, body: dict[str, Any]) -> Any:
    return make_client({"generation": replicas}).post(path, json=body)


def events_of(response: Any) -> list[str]:
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    frames = response.text.split("\n\n")
    assert frames.pop() == ""
    assert all(frame.startswith("data: ") for frame in frames)
    return [frame.removeprefix("data: ") for frame in frames]


def sent_to(replicas: FakeReplicas) -> list[GenerationRequest]:
    ((method, (_session, _call, model_id, requests)),) = replicas.calls
    assert (method, model_id) == ("generate", "chat-model")
    return list(requests)


def at_once() -> FakeReplicas:
    """A replica that ends every choice with its first delta."""

    async def generate(
        session_id: str, call_id: str, model_id: str, requests: list[GenerationRequest]
    ) -> AsyncGenerator[list[Delivery]]:
        end = TextDelta("x", finish_reason="stop", usage=Usage(1, 1))
        choices = sum(request.n for request in requests)
        yield [Delivery(call_id, tuple(ChoiceDelta(index, end) for index in range(choices)))]

    return FakeReplicas(streams={"generate": generate})


def ask_chat(body: dict[str, Any], *items: Any) -> ChatCompletion:
    """A whole chat completion, checked strictly."""
    response = post(script(*(items or HELLO)), "/v1/chat/completions", CHAT | body)
    assert response.status_code == 200, response.text
    return ChatCompletion.model_validate_json(response.content, strict=True)


def stream_chat(body: dict[str, Any], *items: Any) -> list[ChatCompletionChunk]:
    """The chunks of a streamed chat, checked strictly."""
    response = post(script(*items), "/v1/chat/completions", CHAT | body | {"stream": True})
    events = events_of(response)
    assert events.pop() == "[DONE]"
    return [ChatCompletionChunk.model_validate_json(event, strict=True) for event in events]


def chat_request(**fields: Any) -> GenerationRequest:
    """What a chat with these fields asks of the engine."""
    replicas = at_once()
    response = post(replicas, "/v1/chat/completions", CHAT | fields)
    assert response.status_code == 200, response.text
    (request,) = sent_to(replicas)
    return request


def completion_requests(**fields: Any) -> list[GenerationRequest]:
    """What a completion with these fields asks of the engine."""
    replicas = at_once()
    response = post(replicas, "/v1/completions", COMPLETION | fields)
    assert response.status_code == 200, response.text
    return sent_to(replicas)


def refused(path: str, body: dict[str, Any]) -> tuple[str | None, str]:
    """The field and the code of a refusal, which happened before any replica was asked."""
    replicas = script(*HELLO)
    response = post(replicas, path, body)
    assert response.status_code == 400, response.text
    assert not replicas.calls
    error = response.json()["error"]
    return error["param"], error["code"]


def completion_chunk(event: str) -> Completion:
    """The package has no type for chunks: `Completion` demands a finish_reason, which OpenAI's own
    chunks have as null until the last. Everything else is checked strictly."""
    chunk = json.loads(event)
    for choice in chunk["choices"]:
        if choice["finish_reason"] is None:
            choice["finish_reason"] = "length"
    return Completion.model_validate_json(json.dumps(chunk), strict=True)
