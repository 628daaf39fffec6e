"""`keep_alive` and `ttl`, in bodies and in the header, on every route that names a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.responses import Response, StreamingResponse
from starlette.types import Message

from config.access import ApiKey, digest_of
from deployments.ingress.access import key_ring
from deployments.ingress.app import all_endpoints
from deployments.ingress.keep_alive import KeepingAlive
from deployments.ingress.keep_alive_fields import KeepAliveFields, parse_keep_alive
from deployments.ingress.observing.request_record import RequestRecord, note_model, recording
from deployments.metrics.catalog import REQUESTS
from deployments.model_cache.slot import PINNED
from models.types.classification import ClassificationResult, ClassifierInfo, LabelScores
from models.types.common import Usage
from models.types.pages import OcrResult, Page
from models.types.texts import EmbeddingResult
from tests.fakes import FakeMetrics, FakeReplicas, make_client, make_server
from tests.rendered_pages import encoded

EMBED = {"model": "embedding-model", "input": "a"}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (300, 300.0),
        (1.5, 1.5),
        (-1, PINNED),
        (-0.5, PINNED),
        ("0", 0.0),
        ("300", 300.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1h30m15s", 5415.0),
        ("300ms", 0.3),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("+5m", 300.0),
        ("-1", PINNED),
        ("-1s", PINNED),
        (" 5m ", 300.0),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_keep_alive(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        *("", "m", "1d", "5 m", "1h-5m", "m5", "1e3s", "٣m", "9" * 65, True, [], {}),
        *(float("nan"), float("inf"), 1e300, -(10**400), "9" * 60),
    ],
    ids=repr,
)
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match="Should be seconds"):
        parse_keep_alive(value)


def test_every_route_that_names_a_model_takes_it() -> None:
    others = [
        endpoint.path
        for endpoint in all_endpoints()
        if endpoint.method == "POST"
        and endpoint.body is not None
        and "model" in endpoint.body.model_fields
        and endpoint.tag != "model control"
        and not issubclass(endpoint.body, KeepAliveFields)
    ]
    assert others == []


def client(**options: Any) -> tuple[Any, FakeReplicas]:
    async def embed(model_id: str, requests: list[Any]) -> list[EmbeddingResult]:
        return [EmbeddingResult(np.zeros((1, 4), np.float32), Usage(1, 0)) for _ in requests]

    replicas = FakeReplicas({"embed": embed})
    return make_client({"embedding": replicas}, **options), replicas


def kept(replicas: FakeReplicas) -> list[tuple[Any, ...]]:
    return [args for method, args in replicas.calls if method == "keep_model"]


@pytest.mark.parametrize(
    ("fields", "headers", "seconds"),
    [
        ({"keep_alive": "10m"}, {}, 600.0),
        ({"keep_alive": -1}, {}, PINNED),
        ({"keep_alive": 0}, {}, 0.0),
        ({"ttl": 30}, {}, 30.0),
        ({"keep_alive": 5, "ttl": 30}, {}, 5.0),
        ({}, {"x-keep-alive": "1h"}, 3600.0),
        ({"keep_alive": 5}, {"x-keep-alive": "1h"}, 5.0),
        ({"keep_alive": None}, {"x-keep-alive": "-1"}, PINNED),
    ],
    ids=str,
)
def test_the_replicas_are_told_after_the_reply(
    fields: dict[str, Any], headers: dict[str, str], seconds: float
) -> None:
    http, replicas = client()
    assert http.post("/v1/embeddings", json=EMBED | fields, headers=headers).status_code == 200
    assert kept(replicas) == [("embedding-model", seconds)]
    assert [method for method, _ in replicas.calls] == ["embed", "keep_model"]


@pytest.mark.parametrize(("tag", "told"), [("embeddings", False), ("Model control", True)])
def test_a_key_that_may_not_move_models_cannot_keep_or_drop_them(
    monkeypatch: pytest.MonkeyPatch, tag: str, told: bool
) -> None:
    key = ApiKey("a", digest_of(b"key"), allow=frozenset({"embeddings", tag.lower()}))
    monkeypatch.setattr(key_ring, "environment_keys", lambda: (key,))
    http, replicas = client()
    headers = {"authorization": "Bearer key", "x-keep-alive": "-1"}
    assert http.post("/v1/embeddings", json=EMBED, headers=headers).status_code == 200
    assert kept(replicas) == ([("embedding-model", PINNED)] if told else [])
    reply = http.post("/v1/embeddings", json=EMBED | {"keep_alive": 0}, headers=headers)
    assert reply.status_code == 200
    assert len(kept(replicas)) == 2 * told


def test_without_it_nobody_is_told() -> None:
    http, replicas = client()
    assert http.post("/v1/embeddings", json=EMBED).status_code == 200
    assert [method for method, _ in replicas.calls] == ["embed"]


def test_a_request_that_fails_binds_nothing() -> None:
    http, replicas = client()
    bad = EMBED | {"input": [], "keep_alive": -1}
    assert http.post("/v1/embeddings", json=bad).status_code == 400
    assert kept(replicas) == []


@pytest.mark.parametrize("name", ["keep_alive", "ttl"])
@pytest.mark.parametrize("value", ["soon", True, [1], {"s": 1}], ids=str)
def test_a_malformed_field_is_named(name: str, value: object) -> None:
    http, replicas = client()
    reply = http.post("/v1/embeddings", json=EMBED | {name: value})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == name
    assert replicas.calls == []


def test_a_malformed_header_is_named() -> None:
    http, replicas = client()
    reply = http.post("/v1/embeddings", json=EMBED, headers={"x-keep-alive": "soon"})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "x-keep-alive"
    assert replicas.calls == []


async def test_a_client_that_leaves_a_stream_has_had_its_say() -> None:
    replicas = FakeReplicas()
    server = make_server({"generation": replicas})
    begun = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes]:
        yield b"data: 1\n\n"
        await asyncio.Event().wait()

    async def send(message: Message) -> None:
        if message.get("body"):
            begun.set()

    async def receive() -> Message:
        await begun.wait()
        return {"type": "http.disconnect"}

    with recording(RequestRecord()):
        note_model("generation", "chat-model")
        answer = KeepingAlive(StreamingResponse(chunks()), server.clients, PINNED)
    scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
    await asyncio.wait_for(answer(scope, receive, send), 60)
    assert kept(replicas) == [("chat-model", PINNED)]


async def test_a_cancelled_request_still_tells_the_replicas() -> None:
    replicas = FakeReplicas()
    begun = asyncio.Event()

    class Endless(Response):
        async def __call__(self, *args: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

    with recording(RequestRecord()):
        note_model("generation", "chat-model")
        answer = KeepingAlive(Endless(), make_server({"generation": replicas}).clients, 5.0)
    running = asyncio.ensure_future(answer({}, None, None))  # type: ignore[arg-type]
    await begun.wait()
    running.cancel()
    await asyncio.wait([running])
    await asyncio.sleep(0)
    assert kept(replicas) == [("chat-model", 5.0)]


@pytest.mark.parametrize(
    ("sent", "fields", "headers"),
    [
        ("file", {}, {"x-keep-alive": "10m"}),
        ("file", {"keep_alive": "10m"}, {}),
        ("form", {}, {"x-keep-alive": "10m"}),
        ("form", {"keep_alive": "10m"}, {}),
        ("form", {"ttl": "600"}, {"x-keep-alive": "1s"}),
    ],
    ids=str,
)
def test_files_and_forms(sent: str, fields: dict[str, str], headers: dict[str, str]) -> None:
    async def recognize(model_id: str, requests: list[Any]) -> list[OcrResult]:
        return [OcrResult((Page(20, 10, ()),)) for _ in requests]

    replicas = FakeReplicas({"recognize": recognize})
    http = make_client({"ocr": replicas})
    picture = encoded(Image.new("L", (20, 10), 0))
    if sent == "file":
        headers = headers | {"content-type": "image/png"}
        reply = http.post("/v1/ocr", params=fields, content=picture, headers=headers)
    else:
        reply = http.post("/v1/ocr", data=fields, files={"file": picture}, headers=headers)
    assert reply.status_code == 200, reply.text
    assert kept(replicas) == [("ocr-model", 600.0)]


MOOD = ClassifierInfo(
    name="mood",
    version=1,
    created=1,
    size_bytes=9,
    base_model="embedding-model",
    fingerprint="",
    dimensions=4,
    labels=("bad", "good"),
    samples=2,
    head="logistic",
)
FIT = {
    "model": "mood",
    "training_data": [{"text": "a", "label": "bad"}, {"text": "b", "label": "good"}],
}


def classifiers() -> FakeReplicas:
    async def classify(model_id: str, requests: list[Any]) -> list[ClassificationResult]:
        row = np.array([[0.25, 0.75]], np.float32)
        return [ClassificationResult(("insult", "toxic"), row, row, Usage(1)) for _ in requests]

    async def fit(model_id: str, request: Any) -> ClassifierInfo:
        return MOOD

    async def predict(model_id: str, requests: list[Any]) -> list[LabelScores]:
        return [LabelScores(MOOD.labels, np.ones((1, 2), np.float32), 1) for _ in requests]

    async def get_classifier(model_id: str, name: str) -> ClassifierInfo:
        return MOOD

    methods = (classify, fit, predict, get_classifier)
    return FakeReplicas({method.__name__: method for method in methods})


def encoders() -> FakeReplicas:
    async def embed(model_id: str, requests: list[Any]) -> list[EmbeddingResult]:
        rows = [np.eye(4, dtype=np.float32)[: len(request.inputs)] for request in requests]
        return [EmbeddingResult(row, Usage(1)) for row in rows]

    return FakeReplicas({"embed": embed})


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/classify", {"input": "a"}, ["classifier-model"]),
        ("/v1/classify", {"input": "a", "labels": ["x", "y"]}, ["classifier-model"]),
        (
            "/v1/classify",
            {"model": "embedding-model", "input": "a", "labels": ["x", "y"]},
            ["embedding-model"],
        ),
        ("/classify", {"model": "classifier-model", "texts": ["a"]}, ["classifier-model"]),
        ("/predict", {"inputs": "a"}, ["classifier-model"]),
        ("/v1/moderations", {"input": "a"}, ["moderator"]),
        ("/v1/moderations", {"model": "moderator", "input": "a"}, ["moderator"]),
        ("/v1/classifier/fit", FIT, ["classifiers", "embedding-model"]),
        (
            "/v1/classifier/predict",
            {"model": "mood", "texts": ["a"]},
            ["classifiers", "embedding-model"],
        ),
        ("/v1/classifier/load", {"model": "mood"}, ["classifiers"]),
    ],
    ids=str,
)
def test_models_that_are_found_by_what_they_can_do(
    path: str, body: dict[str, Any], told: list[str]
) -> None:
    judges, vectors, metrics = classifiers(), encoders(), FakeMetrics()
    http = make_client({"classification": judges, "embedding": vectors}, metrics=metrics)
    reply = http.post(path, json=body | {"keep_alive": "10m"})
    assert reply.status_code == 200, reply.text
    assert kept(judges) + kept(vectors) == [(model_id, 600.0) for model_id in told]
    ((task, model_id, *_),) = [key for name, key in metrics.totals if name == REQUESTS.name]
    assert (task, model_id) == (
        "embedding" if told[-1] == "embedding-model" else "classification",
        told[-1],
    )
