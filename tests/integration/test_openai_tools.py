"""OpenAI's client with tools and structured output against the real graph and the real model.

What a small model says is its own affair; that its calls and objects are valid is ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types import Completion, CompletionChoice
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.integration.conftest import RunningServer

MODEL = "smollm2-135m-instruct"
QUESTION: Any = [{"role": "user", "content": "What is the weather in Paris, in celsius?"}]


class GetWeather(BaseModel):
    """Get the weather in a city."""

    city: Literal["Paris", "London", "Tokyo"]
    unit: Literal["celsius", "fahrenheit"]


class Answer(BaseModel):
    colour: Literal["red", "green", "blue"]
    likes: Literal["cats", "dogs"]
    certain: bool


WEATHER: Any = openai.pydantic_function_tool(GetWeather)
TIME: Any = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["utc", "local"]}},
            "required": ["zone"],
        },
    },
}


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[OpenAI]:
    url = f"{server.url}/v1"
    with OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=300) as openai_client:
        yield openai_client


def test_a_call_that_is_demanded_is_made_and_its_answer_is_taken(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=QUESTION,
        tools=[WEATHER, TIME],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    )
    completion = ChatCompletion.model_validate_json(raw.content, strict=True)
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    call: Any
    (call,) = choice.message.tool_calls or []
    assert call.id
    assert call.function.name in {"GetWeather", "get_time"}
    assert isinstance(json.loads(call.function.arguments), dict)
    tool: Any = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}
    answer: Any = [*QUESTION, choice.message, tool]
    reply = client.chat.completions.create(
        model=MODEL,
        messages=answer,
        tools=[WEATHER, TIME],
        tool_choice="none",
        temperature=0,
        max_tokens=24,
    )
    assert reply.choices[0].message.tool_calls is None
    assert reply.choices[0].message.content


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_named_function_is_called_with_valid_arguments(
    client: OpenAI, temperature: float
) -> None:
    completion = client.chat.completions.parse(
        model=MODEL,
        messages=QUESTION,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "GetWeather"}},
        parallel_tool_calls=False,
        temperature=temperature,
        seed=5,
    )
    (call,) = completion.choices[0].message.tool_calls or []
    assert call.function.name == "GetWeather"
    assert isinstance(call.function.parsed_arguments, GetWeather)


def test_the_streaming_helper_puts_calls_together(client: OpenAI) -> None:
    options: Any = {
        "model": MODEL,
        "messages": QUESTION,
        "tools": [WEATHER],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
    }
    whole = client.chat.completions.parse(**options).choices[0].message
    with client.chat.completions.stream(**options) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    assert kinds.count("tool_calls.function.arguments.done") == 1
    assert final.choices[0].finish_reason == "tool_calls"
    (streamed,) = final.choices[0].message.tool_calls or []
    (expected,) = whole.tool_calls or []
    assert streamed.function.parsed_arguments == expected.function.parsed_arguments
    assert isinstance(streamed.function.parsed_arguments, GetWeather)


def events_of(server: RunningServer, path: str, body: dict[str, Any]) -> list[str]:
    with server.client.stream("POST", path, json=body | {"stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events.pop() == "[DONE]"
    return events


def test_every_streamed_piece_of_a_call_satisfies_the_clients_types(server: RunningServer) -> None:
    body = {
        "model": MODEL,
        "messages": QUESTION,
        "tools": [WEATHER],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
        "stream_options": {"include_usage": True},
    }
    events = events_of(server, "/v1/chat/completions", body)
    *chunks, last = [ChatCompletionChunk.model_validate_json(e, strict=True) for e in events]
    assert last.usage is not None
    assert all(chunk.usage is None for chunk in chunks)
    pieces = [call for c in chunks for call in c.choices[0].delta.tool_calls or []]
    first, *rest = [piece for piece in pieces if piece.index == 0]
    assert first.id
    assert first.type == "function"
    assert first.function is not None
    assert first.function.name == "GetWeather"
    assert all(piece.id is None and piece.type is None for piece in rest)
    assert all(piece.function and piece.function.name is None for piece in rest)
    assert len(rest) > 1
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_parsed_answers_are_always_valid(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Describe yourself. Blue? Cats?"}]
    completion = client.chat.completions.parse(
        model=MODEL, messages=messages, response_format=Answer, n=3, temperature=1.5, seed=1
    )
    assert [choice.finish_reason for choice in completion.choices] == ["stop"] * 3
    assert all(isinstance(choice.message.parsed, Answer) for choice in completion.choices)
    with client.chat.completions.stream(
        model=MODEL, messages=messages, response_format=Answer, temperature=0
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Answer)


def test_formats_of_completions_and_of_vllm(server: RunningServer) -> None:
    def answer(**fields: Any) -> str:
        body = {"model": MODEL, "messages": QUESTION, "max_tokens": 64, "temperature": 0} | fields
        reply = server.client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["choices"][0]["message"]["content"])

    assert json.loads(answer(guided_json={"enum": [17, None]})) in {17, None}
    assert answer(structured_outputs={"choice": ["yes", "no"]}) in {"yes", "no"}
    assert answer(guided_regex="[ab]{3}") in {a + b + c for a in "ab" for b in "ab" for c in "ab"}
    body = {"model": MODEL, "prompt": "The sky is", "structured_outputs": {"choice": ["blue"]}}
    reply = server.client.post("/v1/completions", json=body)
    assert reply.json()["choices"][0]["text"] == "blue"


def test_hostile_formats_are_refused_or_followed_and_the_server_lives(
    server: RunningServer,
) -> None:
    for field, value, statuses in (
        ("guided_regex", "(x{1000}){1000}", {200, 400}),
        ("guided_regex", "(a+)+b", {200}),
        ("guided_regex", "[", {400}),
        ("guided_json", {"type": "nope"}, {400}),
        ("guided_json", {"$ref": "http://127.0.0.1/"}, {400}),
        ("guided_json", {"type": "string", "pattern": "["}, {400}),
    ):
        body = {"model": MODEL, "messages": QUESTION, "max_tokens": 4, field: value}
        reply = server.client.post("/v1/chat/completions", json=body, timeout=20)
        assert reply.status_code in statuses, (field, value)
    assert server.client.get("/health").status_code == 200


def test_echo_scores_the_prompt(server: RunningServer) -> None:
    body = {
        "model": MODEL,
        "prompt": "The capital of France is Paris",
        "max_tokens": 0,
        "echo": True,
        "logprobs": 1,
    }
    reply = server.client.post("/v1/completions", json=body).json()
    (choice,) = reply["choices"]
    assert choice["text"] == body["prompt"]
    logprobs = choice["logprobs"]
    assert logprobs["token_logprobs"][0] is None
    assert all(logprob <= 0 for logprob in logprobs["token_logprobs"][1:])
    assert "".join(logprobs["tokens"]) == body["prompt"]
    starts = logprobs["text_offset"]
    assert all(
        choice["text"][i:].startswith(t) for i, t in zip(starts, logprobs["tokens"], strict=True)
    )
    assert reply["usage"]["prompt_tokens"] == len(logprobs["tokens"])
    assert reply["usage"]["completion_tokens"] == 0
    streamed = [json.loads(event) for event in events_of(server, "/v1/completions", body)]
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == body["prompt"]


def test_the_best_of_several(client: OpenAI) -> None:
    raw = client.completions.with_raw_response.create(
        model=MODEL,
        prompt="Once upon a time",
        best_of=4,
        n=3,
        max_tokens=8,
        seed=3,
        logprobs=0,
        extra_body={"ignore_eos": True},
    )
    completion = Completion.model_validate_json(raw.content, strict=True)
    scores = [mean_logprob(choice) for choice in completion.choices]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 1
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 4 * 8


def mean_logprob(choice: CompletionChoice) -> float:
    assert choice.logprobs is not None
    scores = choice.logprobs.token_logprobs or []
    return sum(scores) / len(scores)


def test_a_suffix_is_refused_by_a_model_that_cannot_fill_in(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.completions.create(model=MODEL, prompt="def f(", suffix="):")
    assert refusal.value.param == "suffix"


def test_tokens_there_and_back(server: RunningServer) -> None:
    post = server.client.post
    tokens = post("/tokenize", json={"model": MODEL, "prompt": "Hello, world!"}).json()
    assert tokens["count"] == len(tokens["tokens"]) > 2
    text = post("/v1/detokenize", json={"model": MODEL, "tokens": tokens["tokens"]}).json()
    assert text == {"prompt": "Hello, world!", "content": "Hello, world!"}
    rendered = post("/apply-template", json={"messages": QUESTION}).json()["prompt"]
    assert QUESTION[0]["content"] in rendered
    assert rendered.endswith("assistant\n")
    chat = post("/v1/tokenize", json={"model": MODEL, "messages": QUESTION}).json()
    again = post("/tokenize", json={"content": rendered}).json()
    assert chat["tokens"] == again["tokens"]
    usage = post(
        "/v1/chat/completions", json={"model": MODEL, "messages": QUESTION, "max_tokens": 1}
    ).json()["usage"]
    assert usage["prompt_tokens"] == chat["count"]


def test_an_answer_that_has_begun_goes_on(client: OpenAI) -> None:
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "user", "content": "Count from 1 to 6."},
            {"role": "assistant", "content": "1, 2, 3,"},
        ],
        max_tokens=4,
        temperature=0,
        extra_body={"continue_final_message": True},
    )
    assert "4" in (reply.choices[0].message.content or "")


def test_a_chat_that_is_too_long_is_shortened_on_request(client: OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "word " * 9000},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Say hello."},
    ]
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
    assert long.value.code == "context_length_exceeded"
    reply = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=4, extra_body={"truncation": "auto"}
    )
    assert reply.usage is not None
    assert reply.usage.prompt_tokens < 200


def test_a_template_cannot_be_sent(server: RunningServer) -> None:
    for path in ("/v1/chat/completions", "/tokenize", "/apply-template"):
        for fields in (
            {"chat_template": "{{ 1 }}"},
            {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
            {"chat_template_kwargs": {"messages": "x"}},
        ):
            body = {"model": MODEL, "messages": QUESTION, "max_tokens": 1} | fields
            reply: httpx.Response = server.client.post(path, json=body)
            assert reply.status_code == 400, (path, fields)
