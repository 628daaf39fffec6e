"""OpenAI's client against the real graph; every body must satisfy the package's own types."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.integration.conftest import RunningServer

CHAT_MODEL = "smollm2-135m-instruct"
EMBEDDING_MODEL = "all-minilm-l6-v2"
QUESTION: Any = [{"role": "user", "content": "What is 2+2?"}]


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[OpenAI]:
    url = f"{server.url}/v1"
    with OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=300) as openai_client:
        yield openai_client


def test_chat(client: OpenAI, server: RunningServer) -> None:
    response = client.chat.completions.with_raw_response.create(
        model=CHAT_MODEL, messages=QUESTION, max_tokens=30, temperature=0
    )
    completion = ChatCompletion.model_validate_json(response.content, strict=True)
    assert "4" in (completion.choices[0].message.content or "")
    assert completion.usage is not None
    assert completion.usage.total_tokens == (
        completion.usage.prompt_tokens + completion.usage.completion_tokens
    )
    assert response.headers["x-request-id"]
    assert completion.model == CHAT_MODEL


def test_a_streamed_chat_is_the_same_text_with_exact_usage(client: OpenAI) -> None:
    whole = client.chat.completions.create(
        model=CHAT_MODEL, messages=QUESTION, max_tokens=24, temperature=0
    )
    stream = client.chat.completions.create(
        model=CHAT_MODEL,
        messages=QUESTION,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    usage = chunks[-1].usage
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == whole.choices[0].finish_reason
    assert not any(reasons[:-1])


def test_every_chunk_satisfies_the_clients_types(server: RunningServer) -> None:
    body = {
        "model": CHAT_MODEL,
        "messages": QUESTION,
        "max_tokens": 8,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events.pop() == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(event, strict=True) for event in events]
    assert {c.choices[0].index for c in chunks if c.choices} == {0, 1}
    assert chunks[0].choices[0].delta.role == "assistant"
    with_logprobs = [c for c in chunks if c.choices and c.choices[0].logprobs]
    assert with_logprobs


def test_seed_stop_and_choices(client: OpenAI) -> None:
    def ask(**options: Any) -> list[str]:
        reply = client.chat.completions.create(
            model=CHAT_MODEL, messages=QUESTION, max_tokens=12, **options
        )
        return [choice.message.content or "" for choice in reply.choices]

    assert ask(seed=7, temperature=1) == ask(seed=7, temperature=1)
    assert len(set(ask(seed=7, temperature=1.5, n=3))) > 1
    [stopped] = ask(temperature=0, stop="answer")
    assert "answer" not in stopped
    assert stopped.startswith("The")


def test_the_second_turn_costs_only_its_new_tokens(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "Write about rivers. " * 30}]
    first = client.chat.completions.create(
        model=CHAT_MODEL,
        messages=messages,
        max_tokens=8,
        temperature=0,  # type: ignore[arg-type]
    )
    messages += [
        {"role": "assistant", "content": first.choices[0].message.content or ""},
        {"role": "user", "content": "And lakes?"},
    ]
    second = client.chat.completions.create(
        model=CHAT_MODEL,
        messages=messages,
        max_tokens=8,
        temperature=0,  # type: ignore[arg-type]
    )
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    cached = second.usage.prompt_tokens_details.cached_tokens or 0
    assert cached >= first.usage.prompt_tokens * 0.9


def test_completions(client: OpenAI, server: RunningServer) -> None:
    response = client.completions.with_raw_response.create(
        model=CHAT_MODEL, prompt=["1, 2, 3, 4,", "a b c"], max_tokens=8, temperature=0, logprobs=1
    )
    completion = Completion.model_validate_json(response.content, strict=True)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert "5" in completion.choices[0].text
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.tokens or []) == len(logprobs.token_logprobs or []) > 0
    text = "".join(
        chunk.choices[0].text
        for chunk in client.completions.create(
            model=CHAT_MODEL, prompt="1, 2, 3, 4,", max_tokens=8, temperature=0, stream=True
        )
    )
    assert text == completion.choices[0].text


def test_embeddings(client: OpenAI, server: RunningServer) -> None:
    texts = ["A cat sits on the mat.", "A feline rests on a rug.", "Stock prices fell."]
    body = {"model": EMBEDDING_MODEL, "input": texts}
    reply = server.client.post("/v1/embeddings", json=body)
    CreateEmbeddingResponse.model_validate_json(reply.content, strict=True)
    vectors = np.array([item["embedding"] for item in reply.json()["data"]])
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    # The client asks for base64 by itself and decodes it.
    again = client.embeddings.create(model=EMBEDDING_MODEL, input=texts)
    np.testing.assert_allclose([d.embedding for d in again.data], vectors, atol=2e-3)
    short = client.embeddings.create(model=EMBEDDING_MODEL, input=texts[0], dimensions=64)
    assert np.linalg.norm(short.data[0].embedding) == pytest.approx(1, abs=1e-3)
    assert len(short.data[0].embedding) == 64


def test_many_clients_share_calls_and_get_their_own_vectors(server: RunningServer) -> None:
    texts = [f"text number {i} " * (1 + i % 20) for i in range(64)]

    async def embed_all() -> list[list[float]]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as http:
            replies = await asyncio.gather(
                *(
                    http.post("/v1/embeddings", json={"model": EMBEDDING_MODEL, "input": text})
                    for text in texts
                )
            )
        return [reply.json()["data"][0]["embedding"] for reply in replies]

    together = np.array(asyncio.run(embed_all()))
    bulk = server.client.post("/v1/embeddings", json={"model": EMBEDDING_MODEL, "input": texts})
    one_by_one = np.array([item["embedding"] for item in bulk.json()["data"]])
    assert (np.sum(together * one_by_one, axis=1) > 0.999).all()


def test_models(client: OpenAI, server: RunningServer) -> None:
    listed = server.client.get("/v1/models").json()
    for entry in listed["data"]:
        Model.model_validate(entry, strict=True)
    ids = {entry["id"] for entry in listed["data"]}
    assert {CHAT_MODEL, EMBEDDING_MODEL, "ms-marco-minilm-l-12-v2", "pp-ocrv6"} <= ids
    assert client.models.retrieve("sentence-transformers/all-MiniLM-L6-v2").id == EMBEDDING_MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such-model")


def test_errors_are_the_clients_own(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong_task:
        client.chat.completions.create(model=EMBEDDING_MODEL, messages=QUESTION)
    assert wrong_task.value.code == "model_not_supported"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model=CHAT_MODEL, messages=[{"role": "user", "content": "word " * 20_000}]
        )
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model=CHAT_MODEL,
            messages=[{"role": "user", "content": "word " * 20_000}],
            stream=True,
        )
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as temperature:
        client.chat.completions.create(model=CHAT_MODEL, messages=QUESTION, temperature=3)
    assert temperature.value.param == "temperature"


def test_bad_bodies_through_the_real_edge(server: RunningServer) -> None:
    json_type = {"content-type": "application/json"}
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/rerank"):
        reply = server.client.post(path, content=b"{", headers=json_type)
        assert reply.status_code == 400
        assert set(json.loads(reply.content)) == {"error"}
    reply = server.client.post("/nope", json={})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert reply.headers["x-request-id"]
    reply = server.client.get("/v1/embeddings", headers={"x-request-id": "mine-1"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")
    assert reply.headers["x-request-id"] == "mine-1"


def test_sixteen_streams_at_once_are_each_complete(server: RunningServer) -> None:
    """Their deltas share a stream inside the server; none may be lost, doubled or mixed up."""

    async def ask(http: httpx.AsyncClient, number: int) -> tuple[str, int]:
        body = {
            "model": CHAT_MODEL,
            "prompt": f"{number}, {number}, {number}, {number}, {number},",
            "max_tokens": 16,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        events = []
        async with http.stream("POST", "/v1/completions", json=body) as response:
            async for line in response.aiter_lines():
                if line:
                    events.append(line.removeprefix("data: "))
        assert events.pop() == "[DONE]"
        chunks = [json.loads(event) for event in events]
        usage = chunks.pop()["usage"]
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
        return text, usage["completion_tokens"]

    async def ask_all() -> list[tuple[str, int]]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as http:
            return await asyncio.gather(*(ask(http, 10 + i) for i in range(16)))

    for i, (text, tokens) in enumerate(asyncio.run(ask_all())):
        assert tokens == 16
        assert f" {10 + i}" in text
        others = {str(10 + k) for k in range(16)} - {str(10 + i)}
        assert not others & set(text.replace(",", " ").split())
