"""One item that a model cannot bear: it fails, and nobody else."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.faults.conftest import error_of
from tests.integration.conftest import RunningServer
from tests.rendered_pages import encoded

Body = Callable[[str], dict[str, Any]]
PICTURE = base64.b64encode(encoded(Image.new("L", (80, 30), 60))).decode()
IMAGE = {"type": "image_url", "image_url": f"data:image/png;base64,{PICTURE}"}
BATCHES: dict[str, tuple[str, str, Body]] = {
    "Embedding": ("/v1/embeddings", "data", lambda text: {"model": "texts", "input": text}),
    "Rerank": (
        "/v1/rerank",
        "results",
        lambda text: {"model": "pairs", "query": text, "documents": ["a document"]},
    ),
    "Classification": (
        "/v1/classify",
        "data",
        lambda text: {"model": "labels", "input": text},
    ),
    "Entities": ("/v1/ner", "data", lambda text: {"model": "entities", "texts": [text]}),
    "Ocr": (
        "/v1/ocr",
        "pages",
        lambda text: {"model": "pages", "document": IMAGE, "languages": [text]},
    ),
}
GOOD = [f"good-{number}" for number in range(8)]


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": text}], **fields}


async def post_all(
    server: RunningServer, path: str, bodies: list[dict[str, Any]]
) -> list[httpx.Response]:
    async with httpx.AsyncClient(base_url=server.url, timeout=180) as http:
        return await asyncio.gather(*(http.post(path, json=body) for body in bodies))


@asynccontextmanager
async def watched(server: RunningServer, deployment: str) -> AsyncIterator[set[int]]:
    """The process ids of a deployment's replicas while the block runs."""
    seen: set[int] = set()

    async def look() -> None:
        while True:
            seen.update(p.pid for p in await asyncio.to_thread(server.replicas, deployment))
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()


@pytest.mark.parametrize("task", BATCHES)
def test_one_bad_item_of_a_batch_fails_alone(server: RunningServer, task: str) -> None:
    path, field, body = BATCHES[task]
    alone = server.client.post(path, json=body(GOOD[0]))
    assert alone.status_code == 200, alone.text
    texts = [*GOOD, "fault:raise", "fault:oom", *GOOD]
    *before, failed, exhausted = asyncio.run(
        post_all(server, path, [body(t) for t in (*texts[:8], *texts[10:], *texts[8:10])])
    )
    assert [reply.status_code for reply in before] == [200] * 16
    assert before[0].json()[field] == before[8].json()[field] == alone.json()[field]
    assert (failed.status_code, error_of(failed)) == (500, "internal_error")
    assert failed.headers["x-should-retry"] == "false"
    assert (exhausted.status_code, error_of(exhausted)) == (503, "out_of_memory")
    assert int(exhausted.headers["retry-after"]) >= 1


@pytest.mark.parametrize("task", ["Embedding", "Rerank", "Classification", "Ocr"])
def test_an_item_that_crashes_the_process_is_tried_twice_and_others_survive(
    server: RunningServer, task: str
) -> None:
    path, field, body = BATCHES[task]
    alone = server.client.post(path, json=body(GOOD[0]))

    async def requests() -> tuple[list[httpx.Response], set[int]]:
        async with watched(server, task) as processes:
            bodies = [body(text) for text in (*GOOD[:4], "fault:segv", *GOOD[4:])]
            return await post_all(server, path, bodies), processes

    replies, processes = asyncio.run(requests())
    poison = replies.pop(4)
    assert (poison.status_code, error_of(poison)) == (500, "engine_died")
    assert poison.headers["x-should-retry"] == "false"
    assert [reply.status_code for reply in replies] == [200] * 8
    assert replies[0].json()[field] == alone.json()[field]
    assert len(processes) <= 3  # the first one, and one after each crash
    assert server.client.post(path, json=body(GOOD[0])).json()[field] == alone.json()[field]


def test_one_bad_chat_fails_alone(server: RunningServer) -> None:
    texts = ["one", "fault:raise", "two", "fault:oom"]
    one, failed, two, exhausted = asyncio.run(
        post_all(server, "/v1/chat/completions", [chat(text, temperature=0) for text in texts])
    )
    assert [reply.json()["choices"][0]["message"]["content"] for reply in (one, two)] == [
        "one",
        "two",
    ]
    assert (failed.status_code, error_of(failed)) == (500, "internal_error")
    assert (exhausted.status_code, error_of(exhausted)) == (503, "out_of_memory")


def test_a_chat_that_crashes_the_process_cuts_streams_with_an_error_event(
    server: RunningServer,
) -> None:
    long = chat("a story", temperature=0, stream=True, max_tokens=4000, ignore_eos=True)

    async def requests() -> tuple[list[str], httpx.Response, httpx.Response]:
        events: list[str] = []
        async with httpx.AsyncClient(base_url=server.url, timeout=180) as http:
            poison: asyncio.Task[httpx.Response] | None = None
            async with http.stream("POST", "/v1/chat/completions", json=long) as stream:
                async for line in stream.aiter_lines():
                    events += [line] if line else []
                    if len(events) == 3 and poison is None:
                        crash = chat("fault:segv", stream=True)
                        poison = asyncio.create_task(http.post("/v1/chat/completions", json=crash))
            assert poison is not None
            after = await http.post("/v1/chat/completions", json=chat("next", temperature=0))
            return events, await poison, after

    events, poison, after = asyncio.run(requests())
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "engine_died"
    assert not any("[DONE]" in event for event in events)
    assert (poison.status_code, error_of(poison)) == (500, "engine_died")
    assert poison.headers["x-should-retry"] == "false"
    assert after.json()["choices"][0]["message"]["content"] == "next"


@pytest.mark.parametrize("task", ["Generation", "Embedding"])
def test_an_engine_thread_that_dies_takes_its_replica_along(
    server: RunningServer, task: str
) -> None:
    path, body = ("/v1/chat/completions", chat) if task == "Generation" else BATCHES[task][::2]
    assert server.client.post(path, json=body("before")).status_code == 200
    [replica] = server.replicas(task)
    reply = server.client.post(path, json=body("fault:die"))
    assert (reply.status_code, error_of(reply)) == (503, "engine_died")
    assert int(reply.headers["retry-after"]) >= 1
    replica.wait(180)
    assert server.client.post(path, json=body("after")).status_code == 200
