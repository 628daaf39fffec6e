"""OpenAI's client over the HTTP application, the real deployment class and the toy engine: all that
is between a client and the weights, without Ray."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from config.settings import AppConfig
from deployments.generation import Generation
from deployments.ingress.app import make_app
from tests.fakes import FakeReplicas, make_server, spec

MODEL = "chat-model"
CALL = '<tool_call>\n{"name": "look_up", "arguments": {"word": "sea"}}\n</tool_call>'
GREEDY: Any = {"model": MODEL, "temperature": 0}


class LookUp(BaseModel):
    """Look a word up."""

    word: Literal["sea", "lake"]


class Swim(BaseModel):
    place: Literal["sea", "lake"]


TOOL: Any = openai.pydantic_function_tool(LookUp, name="look_up")


def says(text: str) -> Any:
    """The toy answers with what it was told last."""
    return [{"role": "user", "content": text}]


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("deployments.replica.ray.get_gpu_ids", list)
    replica = Generation([spec(MODEL, "generation")], AppConfig())
    yield replica
    replica.shutdown()


@pytest.fixture
async def http(deployment: Generation) -> AsyncIterator[httpx2.AsyncClient]:
    names = ("tokenize", "detokenize", "render")
    methods = {name: getattr(deployment, name) for name in names}
    replicas = FakeReplicas(methods, {"generate": deployment.generate})
    app: Any = make_app(make_server({"generation": replicas}))
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def client(http: httpx2.AsyncClient) -> AsyncOpenAI:
    return AsyncOpenAI(base_url="http://test/v1", api_key="unused", max_retries=0, http_client=http)


async def test_chat_and_its_stream_say_the_same(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        messages=says("ahoy"), n=2, logprobs=True, top_logprobs=2, **GREEDY
    )
    whole = ChatCompletion.model_validate_json(raw.content, strict=True)
    assert [choice.message.content for choice in whole.choices] == ["ahoy", "ahoy"]
    async with client.chat.completions.stream(
        messages=says("ahoy"), stream_options={"include_usage": True}, **GREEDY
    ) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "ahoy"
    assert kinds.count("content.done") == 1
    assert final.usage is not None
    assert whole.usage is not None
    assert final.usage.prompt_tokens == whole.usage.prompt_tokens
    assert final.usage.completion_tokens * 2 == whole.usage.completion_tokens


async def test_calls_of_tools_whole_and_streamed(client: AsyncOpenAI) -> None:
    options: Any = {"messages": says(CALL), "tools": [TOOL], **GREEDY}
    completion = await client.chat.completions.parse(**options)
    (choice,) = completion.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls or []
    assert call.function.parsed_arguments == LookUp(word="sea")
    async with client.chat.completions.stream(**options) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert kinds.count("tool_calls.function.arguments.done") == 1
    (streamed,) = final.choices[0].message.tool_calls or []
    assert streamed.function.parsed_arguments == LookUp(word="sea")
    answered: Any = [
        *says(CALL),
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "a lot of water"},
    ]
    reply = await client.chat.completions.create(messages=answered, **GREEDY)
    assert reply.choices[0].message.content == "a lot of water"


async def test_streamed_calls_of_tools_satisfy_the_clients_types(http: httpx2.AsyncClient) -> None:
    body = GREEDY | {"messages": says(CALL), "tools": [TOOL], "stream": True}
    response = await http.post("/v1/chat/completions", json=body)
    *events, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks = [
        ChatCompletionChunk.model_validate_json(event.removeprefix("data: "), strict=True)
        for event in events
    ]
    pieces = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [piece.id is not None for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert {piece.index for piece in pieces} == {0}
    arguments = "".join(p.function.arguments or "" for p in pieces if p.function)
    assert json.loads(arguments) == {"word": "sea"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_a_client_of_functions(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        messages=says(CALL), functions=[TOOL["function"]], **GREEDY
    )
    call = completion.choices[0].message.function_call
    assert completion.choices[0].finish_reason == "function_call"
    assert call is not None
    assert (call.name, json.loads(call.arguments)) == ("look_up", {"word": "sea"})


async def test_an_answer_is_of_the_type_that_was_asked_for(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.parse(
        messages=says("I like to swim."), response_format=Swim, **GREEDY
    )
    assert isinstance(completion.choices[0].message.parsed, Swim)


async def test_an_answer_that_has_begun_goes_on(http: httpx2.AsyncClient) -> None:
    messages = [*says("one two"), {"role": "assistant", "content": "one"}]
    body = {"messages": messages, "continue_final_message": True}
    rendered = (await http.post("/apply-template", json=body)).json()["prompt"]
    assert rendered.endswith("assistant\none")


async def test_echo_infilling_and_the_best_of_several(http: httpx2.AsyncClient) -> None:
    async def complete(**fields: Any) -> dict[str, Any]:
        response = await http.post("/v1/completions", json=GREEDY | fields)
        assert response.status_code == 200, response.text
        reply: dict[str, Any] = response.json()
        return reply

    echoed = await complete(prompt="ab", echo=True, max_tokens=0, logprobs=1)
    (choice,) = echoed["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("ab", "length")
    assert choice["logprobs"]["tokens"] == ["a", "b"]
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert choice["logprobs"]["token_logprobs"][1] < 0
    assert choice["logprobs"]["text_offset"] == [0, 1]
    assert (echoed["usage"]["prompt_tokens"], echoed["usage"]["completion_tokens"]) == (2, 0)
    filled = await complete(prompt="ab", suffix="cd", max_tokens=3)
    assert filled["usage"]["prompt_tokens"] == len("abcd") + 3
    best = await complete(prompt=["ab", "cd"], best_of=3, temperature=1, seed=1, max_tokens=4)
    completion = Completion.model_validate_json(json.dumps(best), strict=True)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert best["usage"]["prompt_tokens"] == 4
    assert best["usage"]["completion_tokens"] > 2 * 4


async def test_what_only_the_engine_can_refuse_is_a_400(http: httpx2.AsyncClient) -> None:
    for path, fields, param in (
        (
            "chat/completions",
            {"messages": says("x"), "chat_template_kwargs": {"messages": "y"}},
            "chat_template_kwargs",
        ),
        ("chat/completions", {"messages": says("x"), "logit_bias": {"99999": 1}}, "logit_bias"),
        ("completions", {"prompt": [99999]}, "prompt"),
    ):
        response = await http.post(f"/v1/{path}", json=GREEDY | fields)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param


async def test_tokens_there_and_back(http: httpx2.AsyncClient) -> None:
    body = {"model": MODEL, "prompt": "hé"}
    tokens = (await http.post("/tokenize", json=body)).json()
    assert tokens == {"count": 3, "max_model_len": 4096, "tokens": [104, 195, 169]}
    text = (await http.post("/detokenize", json={"tokens": tokens["tokens"]})).json()
    assert text["prompt"] == "hé"
