"""Replicas that die, clients that leave, tasks that sleep: the next request is answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.integration.conftest import RunningServer

CHAT = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": "Tell me a very long story."}],
}
EMBED = {"model": "all-minilm-l6-v2", "input": ["some text " * 40] * 64}


def assert_right_or_503(reply: httpx.Response) -> None:
    """The whole contract of a request whose replica dies."""
    if reply.status_code == 200:
        assert len(reply.json()["data"]) == 64
        return
    assert reply.status_code == 503
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["error"]["code"] == "engine_died"
    assert int(reply.headers["retry-after"]) >= 1


def test_a_dying_replica_costs_its_requests_nothing_or_a_503(server: RunningServer) -> None:
    assert server.client.post("/v1/embeddings", json=EMBED).status_code == 200
    [replica] = server.replicas("Embedding")

    async def requests_around_a_kill() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as http:
            pending = [
                asyncio.create_task(http.post("/v1/embeddings", json=EMBED)) for _ in range(6)
            ]
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            replica.kill()
            return await asyncio.gather(*pending)

    replies = asyncio.run(requests_around_a_kill())
    for reply in replies:
        assert_right_or_503(reply)
    assert Counter(reply.status_code for reply in replies)[200] >= 1
    assert server.client.post("/v1/embeddings", json=EMBED).status_code == 200


def test_a_stream_whose_replica_dies_ends_with_an_error_event(server: RunningServer) -> None:
    server.client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 1})
    [replica] = server.replicas("Generation")
    events = []
    body = CHAT | {"stream": True, "max_tokens": 4000, "ignore_eos": True}
    with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if line:
                events.append(line)
                if len(events) == 3:
                    replica.kill()
    assert "engine_died" in events[-1]
    assert not any("[DONE]" in event for event in events)
    reply = server.client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 2})
    assert reply.status_code == 200


def test_clients_that_leave_give_their_sequences_back(server: RunningServer) -> None:
    """More streams than the model has sequences, all abandoned: the next chat does not queue."""
    body = CHAT | {"stream": True, "max_tokens": 6000, "ignore_eos": True}

    async def leave_after_first_bytes() -> None:
        async def one(http: httpx.AsyncClient) -> None:
            async with http.stream("POST", "/v1/chat/completions", json=body) as response:
                async for _ in response.aiter_lines():
                    return

        limits = httpx.Limits(max_connections=32)
        async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as http:
            await asyncio.gather(*(one(http) for _ in range(24)))

    asyncio.run(leave_after_first_bytes())
    # Any of the abandoned streams alone would take far longer than this timeout.
    reply = server.client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 2}, timeout=30)
    assert reply.status_code == 200


def test_a_client_that_leaves_takes_no_other_with_it(server: RunningServer) -> None:
    """Small requests share calls; those of clients that stay are answered all the same."""
    body = {"model": "all-minilm-l6-v2", "input": "some text " * 60}

    async def rounds() -> list[object]:
        replies: list[object] = []
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            for _ in range(12):
                pending = [
                    asyncio.create_task(http.post("/v1/embeddings", json=body)) for _ in range(16)
                ]
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for leaving in pending[::3]:
                    leaving.cancel()
                answers = await asyncio.gather(*pending, return_exceptions=True)
                replies += [a for a in answers if not isinstance(a, asyncio.CancelledError)]
        return replies

    replies = asyncio.run(rounds())
    assert len(replies) >= 12 * 10
    assert {getattr(reply, "status_code", reply) for reply in replies} == {200}


def test_an_idle_task_stops_although_it_is_watched_and_wakes_again(server: RunningServer) -> None:
    fit = {"model": "sleeper", "data": [[float(i % 7), float(i % 5)] for i in range(64)]}
    assert server.client.post("/v1/anomaly/fit", json=fit).status_code == 200
    row: dict[str, Any] = {"model": "sleeper", "data": [[100.0, 100.0]]}
    before = server.client.post("/v1/anomaly/score", json=row).json()
    _wait_for_no_replicas(server, "Anomaly")
    after = server.client.post("/v1/anomaly/score", json=row)
    assert after.status_code == 200
    assert after.json() == before


def _wait_for_no_replicas(server: RunningServer, deployment: str) -> None:
    """Polls both status routes all the time: neither may keep a task awake."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        server.client.get("/v1/models")
        reported = server.readiness()["deployments"][deployment]["replicas"]
        if reported == 0 and not server.replicas(deployment):
            return
        time.sleep(0.5)
    pytest.fail(f"{deployment} still has replicas: {server.readiness()}")
