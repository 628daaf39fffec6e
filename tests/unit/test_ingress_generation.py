"""Chat and completions: OpenAI's types accept every body and chunk; deltas become text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from config.settings import AppConfig, DeadlineSettings
from models.errors import EngineDeadError, InputTooLongError
from models.types.common import Usage
from models.types.generation import (
    ChatPrompt,
    ChoiceDelta,
    Delivery,
    Message,
    TextDelta,
    TextPrompt,
    TokenPrompt,
)
from tests.fakes import FakeReplicas, make_client
from tests.scripted_generation import (
    CHAT,
    COMPLETION,
    HELLO,
    completion_chunk,
    events_of,
    post,
    script,
    sent_to,
)


def test_chat_completion() -> None:
    response = post(script(*HELLO), "/v1/chat/completions", CHAT)
    completion = ChatCompletion.model_validate(response.json(), strict=True)
    (choice,) = completion.choices
    assert choice.message.content == "Hello"
    assert choice.finish_reason == "stop"
    assert choice.logprobs is None
    assert completion.usage is not None
    assert completion.usage.total_tokens == 9
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 3
    assert completion.model == "chat-model"


def test_chat_request_reaches_the_replica_as_it_was_meant() -> None:
    replicas = script(*HELLO)
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = CHAT | {
        "model": "vendor/chat-model",
        "messages": [{"role": "developer", "content": "d"}, {"role": "user", "content": parts}],
        "max_tokens": 3,
        "max_completion_tokens": 5,
        "stop": "END",
        "seed": -1,
        "logit_bias": {"7": -100},
        "n": 2,
        "unknown_field": {"ignored": True},
    }
    post(replicas, "/v1/chat/completions", body)
    (request,) = sent_to(replicas)
    assert request.prompt == ChatPrompt((Message("developer", "d"), Message("user", "ab")))
    assert request.n == 2
    assert request.sampling.max_tokens == 5
    assert request.sampling.stop == ("END",)
    assert request.sampling.seed == 2**32 - 1
    assert request.sampling.logit_bias == ((7, -100.0),)
    assert request.sampling.logprobs is None


def test_several_choices() -> None:
    end = {"finish_reason": "length", "usage": Usage(7, 4)}
    items = (
        [(1, TextDelta("b")), (0, TextDelta("a"))],
        [(0, TextDelta("", **end)), (1, TextDelta("", **end))],  # type: ignore[arg-type]
    )
    response = post(script(*items), "/v1/chat/completions", CHAT | {"n": 2})
    completion = ChatCompletion.model_validate(response.json(), strict=True)
    assert [choice.message.content for choice in completion.choices] == ["a", "b"]
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (7, 8)


def test_chat_logprobs() -> None:
    body = CHAT | {"logprobs": True, "top_logprobs": 1}
    replicas = script(*HELLO)
    completion = ChatCompletion.model_validate(
        post(replicas, "/v1/chat/completions", body).json(), strict=True
    )
    assert sent_to(replicas)[0].sampling.logprobs == 1
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0].token == "He"
    assert logprobs.content[0].bytes == [72, 101]
    assert logprobs.content[0].top_logprobs[0].token == "Hi"


@pytest.mark.parametrize("include_usage", [False, True])
def test_chat_stream(include_usage: bool) -> None:
    body = CHAT | {"stream": True, "stream_options": {"include_usage": include_usage}}
    events = events_of(post(script(*HELLO), "/v1/chat/completions", body))
    assert events.pop() == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(event, strict=True) for event in events]
    if include_usage:
        last = chunks.pop()
        assert last.choices == []
        assert last.usage is not None
        assert last.usage.total_tokens == 9
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert [delta.content for delta in deltas[1:]] == ["He", "llo", None]
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None, None, None, "stop"]


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION)]
)
def test_what_fails_before_the_first_delta_is_a_json_error(path: str, body: dict[str, Any]) -> None:
    error = InputTooLongError(9000, 8192, "messages")
    response = post(script(error), path, body | {"stream": True})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION)]
)
@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineDeadError("stopped"), "engine_died"), (RuntimeError("/etc/x"), "internal_error")],
)
def test_what_fails_later_is_an_error_event_and_no_done(
    path: str, body: dict[str, Any], error: Exception, code: str
) -> None:
    events = events_of(post(script(HELLO[0], error), path, body | {"stream": True}))
    last = json.loads(events[-1])
    assert last["error"]["code"] == code
    assert "/etc/x" not in events[-1]
    assert "[DONE]" not in events
    assert len(events) > 1


@pytest.mark.parametrize("begun", [False, True])
def test_the_deadline_of_a_whole_generation(begun: bool) -> None:
    async def generate(session_id: str, call_id: str, *rest: Any) -> AsyncGenerator[list[Delivery]]:
        yield []
        if begun:
            yield [Delivery(call_id, (ChoiceDelta(0, TextDelta("He")),))]
        await asyncio.Event().wait()

    config = AppConfig(deadlines=DeadlineSettings(load_s=0.01, generation_s=0.05))
    replicas = FakeReplicas(streams={"generate": generate})
    client = make_client({"generation": replicas}, config=config)
    response = client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    if begun:
        *_, said, failure = events_of(response)
        assert json.loads(said)["choices"][0]["delta"] == {"content": "He"}
        assert json.loads(failure)["error"]["code"] == "deadline_exceeded"
    else:
        assert response.status_code == 504
    assert replicas.calls[-1][0] == "cancel"


def test_completion() -> None:
    response = post(script(*HELLO), "/v1/completions", COMPLETION)
    completion = Completion.model_validate(response.json(), strict=True)
    assert completion.choices[0].text == "Hello"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 2


def test_completion_prompts() -> None:
    replicas = script(
        [(i, TextDelta(str(i), finish_reason="stop", usage=Usage(1, 1))) for i in range(4)]
    )
    body = COMPLETION | {"prompt": ["a", "b"], "n": 2, "max_tokens": 3}
    completion = Completion.model_validate(
        post(replicas, "/v1/completions", body).json(), strict=True
    )
    assert [choice.text for choice in completion.choices] == ["0", "1", "2", "3"]
    requests = sent_to(replicas)
    assert [request.prompt for request in requests] == [TextPrompt("a"), TextPrompt("b")]
    assert {request.sampling.max_tokens for request in requests} == {3}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ([1, 2], [TokenPrompt((1, 2))]),
        ([[1], [2, 3]], [TokenPrompt((1,)), TokenPrompt((2, 3))]),
    ],
)
def test_completion_token_prompts(prompt: Any, expected: list[TokenPrompt]) -> None:
    replicas = script(*HELLO)
    post(replicas, "/v1/completions", COMPLETION | {"prompt": prompt})
    assert [request.prompt for request in sent_to(replicas)] == expected
    assert sent_to(replicas)[0].sampling.max_tokens == 16


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], [-1], [2**31], ["a", 1], 5, None])
def test_bad_prompts(prompt: Any) -> None:
    response = post(script(*HELLO), "/v1/completions", COMPLETION | {"prompt": prompt})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("prompt")


def test_completion_logprobs() -> None:
    response = post(script(*HELLO), "/v1/completions", COMPLETION | {"logprobs": 1})
    completion = Completion.model_validate(response.json(), strict=True)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["He"]
    assert logprobs.token_logprobs == [-0.5]
    assert logprobs.top_logprobs == [{"Hi": -1.5, "He": -0.5}]
    assert logprobs.text_offset == [0]


def test_completion_stream() -> None:
    body = COMPLETION | {"stream": True, "stream_options": {"include_usage": True}}
    events = events_of(post(script(*HELLO), "/v1/completions", body))
    assert events.pop() == "[DONE]"
    chunks = [completion_chunk(event) for event in events]
    usage = chunks.pop()
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.total_tokens == 9
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello"
    assert [json.loads(event)["choices"][0]["finish_reason"] for event in events[:-1]] == [
        None,
        None,
        "stop",
    ]
