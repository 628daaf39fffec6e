"""What is recorded and logged of a request, over HTTP against fakes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from deployments.ingress.app import make_app
from deployments.ingress.errors import ErrorBoundary
from deployments.ingress.observing.observer import Observer
from deployments.ingress.observing.request_record import RequestRecord, note_deltas, recording
from deployments.ingress.observing.wake_watch import WakeWatch
from deployments.ingress.server import DeploymentState
from models.errors import EngineDeadError, OverloadedError, StorageError
from models.types.common import Usage
from models.types.generation import ChoiceDelta, Delivery, TextDelta
from models.types.texts import EmbeddingResult
from tests.cached_models import Clock
from tests.fakes import FakeCluster, FakeMetrics, FakeReplicas, make_server

CHAT = {"model": "vendor/chat-model", "messages": [{"role": "user", "content": "CANARY"}]}
EMBED = {"model": "embedding-model", "input": "a"}
LABELS = ("generation", "chat-model")


async def embed(model_id: str, requests: list[Any]) -> list[Any]:
    return [EmbeddingResult(np.ones((1, 2), np.float32), Usage(7), (7,)) for _ in requests]


async def busy(*args: Any) -> Any:
    raise OverloadedError("Too many.", 1.0)


async def generate(
    session_id: str, call_id: str, model_id: str, requests: list[Any]
) -> AsyncGenerator[list[Delivery]]:
    yield []
    yield [Delivery(call_id, (ChoiceDelta(0, TextDelta("Hel")),))]
    yield [Delivery(call_id, (ChoiceDelta(0, TextDelta("lo")),))]
    last = TextDelta("", finish_reason="stop", usage=Usage(10, 3, 6))
    yield [Delivery(call_id, (ChoiceDelta(0, last),))]


async def break_off(
    session_id: str, call_id: str, model_id: str, requests: list[Any]
) -> AsyncGenerator[list[Delivery]]:
    yield [Delivery(call_id, (ChoiceDelta(0, TextDelta("Hel")),))]
    yield [Delivery(call_id, (), EngineDeadError("gone"))]


REPLICAS = {
    "generation": FakeReplicas(streams={"generate": generate}),
    "embedding": FakeReplicas({"embed": embed}),
    "rerank": FakeReplicas({"rank": busy}),
}


@pytest.fixture
def metrics() -> FakeMetrics:
    return FakeMetrics()


@pytest.fixture
def client(metrics: FakeMetrics) -> TestClient:
    return TestClient(make_app(make_server(REPLICAS, metrics=metrics)))


def test_a_request_counts_with_its_model_route_and_status(
    client: TestClient, metrics: FakeMetrics
) -> None:
    assert client.post("/v1/embeddings", json=EMBED).status_code == 200
    key = ("embedding", "embedding-model", "/v1/embeddings", "200")
    assert metrics.totals["inference_requests", key] == 1
    assert metrics.totals["inference_prompt_tokens", key[:2]] == 7
    (seconds,) = metrics.values["inference_request_duration_seconds", key[:2]]
    assert 0 < seconds < 60
    assert metrics.values["inference_requests_in_flight", ()] == [0]


def test_an_alias_counts_as_the_id_of_the_catalogue(
    client: TestClient, metrics: FakeMetrics
) -> None:
    assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert metrics.totals["inference_requests", (*LABELS, "/v1/chat/completions", "200")] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_generation_tells_its_tokens_and_their_times(
    client: TestClient, metrics: FakeMetrics, stream: bool
) -> None:
    client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
    assert metrics.totals["inference_prompt_tokens", LABELS] == 10
    assert metrics.totals["inference_completion_tokens", LABELS] == 3
    assert metrics.totals["inference_prefix_cache_hit_tokens", LABELS] == 6
    (first,) = metrics.values["inference_time_to_first_token_seconds", LABELS]
    (between,) = metrics.values["inference_inter_token_latency_seconds", LABELS]
    assert 0 < first < 60
    assert 0 <= between < 60


def test_errors_count_with_the_code_of_their_body(client: TestClient, metrics: FakeMetrics) -> None:
    body = {"model": "rerank-model", "query": "q", "documents": ["d"]}
    assert client.post("/v1/rerank", json=body).status_code == 429
    key = ("rerank", "rerank-model", "rate_limit_exceeded")
    assert metrics.totals["inference_request_errors", key] == 1


def test_an_error_inside_a_stream_counts_too(metrics: FakeMetrics) -> None:
    replicas = {"generation": FakeReplicas(streams={"generate": break_off})}
    client = TestClient(make_app(make_server(replicas, metrics=metrics)))
    client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert metrics.totals["inference_request_errors", (*LABELS, "engine_died")] == 1
    assert metrics.totals["inference_requests", (*LABELS, "/v1/chat/completions", "200")] == 1


async def test_an_answer_that_breaks_off_counts_as_an_error(metrics: FakeMetrics) -> None:
    async def breaking_off(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise StorageError("The file is gone.")

    async def running(task: str) -> int:
        raise AssertionError(task)

    async def ignored(*message: Any) -> Any:
        del message

    app = Observer(ErrorBoundary(breaking_off), metrics, WakeWatch(running))
    with pytest.raises(StorageError):
        await app({"type": "http", "method": "GET", "path": "/", "headers": []}, ignored, ignored)
    assert metrics.totals["inference_request_errors", ("none", "none", "storage_failed")] == 1
    assert metrics.totals["inference_requests", ("none", "none", "none", "200")] == 1


@pytest.mark.parametrize("path", ["/CANARY", "/v1/models/CANARY", "/v1/embeddings"])
def test_nothing_that_a_client_wrote_becomes_a_label_or_a_log_line(
    client: TestClient, metrics: FakeMetrics, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    with caplog.at_level(logging.DEBUG, "ray.serve"):
        client.post(path, json={"model": "CANARY", "input": "CANARY"})
        client.get(path, headers={"x-canary": "CANARY"})
        client.request("CANARY", path)
    assert len(caplog.records) >= 3
    assert not [r for r in caplog.records if "CANARY" in str(r.__dict__)]
    assert "CANARY" not in str(metrics.totals) + str(metrics.values)


def test_the_log_line_says_what_happened(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        client.get("/health")
        reply = client.post("/v1/embeddings", json=EMBED)
    (line,) = caplog.records
    said = line.__dict__
    assert line.getMessage() == "POST /v1/embeddings 200"
    assert (said["task"], said["model"], said["status"]) == ("embedding", "embedding-model", 200)
    assert (said["http_route"], said["prompt_tokens"], said["code"]) == ("/v1/embeddings", 7, "")
    assert said["request_id"] == reply.headers["x-request-id"]
    assert said["duration_ms"] > 0


async def test_a_client_that_left_is_told_from_an_answer(metrics: FakeMetrics) -> None:
    called = asyncio.Event()

    async def never(*args: Any) -> Any:
        called.set()
        await asyncio.Event().wait()

    server = make_server({"embedding": FakeReplicas({"embed": never})}, metrics=metrics)
    transport = httpx.ASGITransport(make_app(server))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        asking = asyncio.create_task(client.post("/v1/embeddings", json=EMBED))
        await called.wait()
        asking.cancel()
        await asyncio.wait([asking])
    key = ("embedding", "embedding-model", "/v1/embeddings", "499")
    assert metrics.totals["inference_requests", key] == 1
    assert metrics.values["inference_requests_in_flight", ()] == [0]


async def test_a_request_that_finds_no_replica_tells_how_long_the_wake_took(
    metrics: FakeMetrics,
) -> None:
    cluster = FakeCluster([DeploymentState("Embedding", "HEALTHY", 0)])
    asked = asyncio.Event()
    states = cluster.deployments

    async def deployments() -> list[DeploymentState]:
        asked.set()
        return await states()

    cluster.deployments = deployments  # type: ignore[method-assign]

    async def slow(model_id: str, requests: list[Any]) -> list[Any]:
        await asked.wait()
        await asyncio.sleep(0)
        return await embed(model_id, requests)

    replicas = {"embedding": FakeReplicas({"embed": slow})}
    transport = httpx.ASGITransport(
        make_app(make_server(replicas, cluster=cluster, metrics=metrics))
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for _ in range(2):  # the second one finds the task awake and asks nobody
            assert (await client.post("/v1/embeddings", json=EMBED)).status_code == 200
    (wake,) = metrics.values["inference_wake_seconds", ("embedding", "embedding-model")]
    assert wake >= 0.25


def test_a_prompt_counts_once_however_many_choices_it_has(metrics: FakeMetrics) -> None:
    async def generate(
        session_id: str, call_id: str, model_id: str, requests: list[Any]
    ) -> AsyncGenerator[list[Delivery]]:
        last = TextDelta("x", finish_reason="stop", usage=Usage(10, 3, 6))
        yield [Delivery(call_id, tuple(ChoiceDelta(index, last) for index in range(4)))]

    replicas = {"generation": FakeReplicas(streams={"generate": generate})}
    client = TestClient(make_app(make_server(replicas, metrics=metrics)))
    body = {"model": "chat-model", "prompt": ["a", "b"], "n": 2}
    usage = client.post("/v1/completions", json=body).json()["usage"]
    assert metrics.totals["inference_prompt_tokens", LABELS] == usage["prompt_tokens"] == 20
    assert metrics.totals["inference_prefix_cache_hit_tokens", LABELS] == 12
    assert metrics.totals["inference_completion_tokens", LABELS] == 12


def test_the_time_per_token_is_that_of_a_choice_however_many_follow_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    record = RequestRecord()
    with recording(record):
        for _ in range(2):  # one generation after the other, and a pause between them
            for index in range(2):
                clock.now += 5
                note_deltas([ChoiceDelta(index, TextDelta("a"))], {0})
                clock.now += 1
                last = TextDelta("b", finish_reason="stop", usage=Usage(7, 11))
                note_deltas([ChoiceDelta(index, last)], {0})
    assert record.inter_token_s == pytest.approx(0.1)
    assert (record.prompt_tokens, record.completion_tokens) == (14, 44)


def test_a_single_token_has_no_time_per_token() -> None:
    record = RequestRecord()
    with recording(record):
        note_deltas([ChoiceDelta(0, TextDelta("a", usage=Usage(7, 1)))], {0})
    assert record.inter_token_s is None


async def test_a_slow_request_of_a_running_task_is_no_wake() -> None:
    asked = asyncio.Event()

    async def running(task: str) -> int:
        assert task == "embedding"
        asked.set()
        return 1

    watch, record = WakeWatch(running), RequestRecord(task="embedding")
    watch.begun(record)
    await asyncio.wait_for(asked.wait(), 30)
    await asyncio.sleep(0)
    assert not record.woke


async def test_a_quick_request_asks_nobody() -> None:
    async def running(task: str) -> int:
        raise AssertionError(task)

    watch, record = WakeWatch(running), RequestRecord(task="embedding", status=200)
    watch.begun(record)
    assert record.wake_probe is not None
    record.answered = time.monotonic()
    watch.ended(record)
    assert record.wake_probe.cancelled()
    later = RequestRecord(task="embedding")
    watch.begun(later)
    assert later.wake_probe is None
