"""Embeddings, rerank, OCR, anomaly, models and health over HTTP, with fake replicas."""

from __future__ import annotations

import base64
from array import array
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from openai.types import CreateEmbeddingResponse, Model

from config.settings import AppConfig, LimitSettings
from deployments.ingress.server import DeploymentState
from models.errors import InvalidInputError, ModelNotFoundError
from models.types.anomaly import AnomalyScores, DetectorInfo, Table
from models.types.common import Usage
from models.types.pages import OcrResult, Page, TextLine
from models.types.status import ModelStatus, ReplicaStatus
from models.types.texts import EmbeddingRequest, EmbeddingResult, RerankResult
from tests.fakes import FakeCluster, FakeReplicas, make_client


async def embed(model_id: str, requests: list[EmbeddingRequest]) -> list[Any]:
    return [
        EmbeddingResult(
            np.arange(3 * len(request.inputs), dtype=np.float32).reshape(-1, 3) / 7,
            Usage(5 * len(request.inputs)),
        )
        for request in requests
    ]


EMBED = {"model": "embedding-model", "input": ["a", "b"]}


def test_embeddings_as_numbers() -> None:
    client = make_client({"embedding": FakeReplicas({"embed": embed})})
    reply = client.post("/v1/embeddings", json=EMBED).json()
    parsed = CreateEmbeddingResponse.model_validate(reply, strict=True)
    assert [item.index for item in parsed.data] == [0, 1]
    assert np.allclose(parsed.data[1].embedding, np.arange(3, 6) / 7)
    assert parsed.usage.total_tokens == 10


def test_embeddings_as_base64_are_little_endian_float32() -> None:
    client = make_client({"embedding": FakeReplicas({"embed": embed})})
    reply = client.post("/v1/embeddings", json=EMBED | {"encoding_format": "base64"}).json()
    raw = base64.b64decode(reply["data"][1]["embedding"])
    assert np.array_equal(np.frombuffer(raw, "<f4"), (np.arange(3, 6) / 7).astype("<f4"))


@pytest.mark.parametrize(
    ("wire", "inputs"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_embedding_inputs(wire: Any, inputs: Any) -> None:
    replicas = FakeReplicas({"embed": embed})
    body = {"model": "embedding-model", "input": wire, "dimensions": 2, "truncate": True}
    assert make_client({"embedding": replicas}).post("/v1/embeddings", json=body).is_success
    ((_, (_, requests)),) = replicas.calls
    vocabulary = "native" if isinstance(inputs[0], str) else "cl100k"
    assert requests == [EmbeddingRequest(inputs, 2, truncate=True, vocabulary=vocabulary)]


@pytest.mark.parametrize("wire", ["", [], [""], ["a", ""], [[]], [-1], [1.5], [None], {}, None])
def test_bad_embedding_inputs(wire: Any) -> None:
    client = make_client({"embedding": FakeReplicas({"embed": embed})})
    response = client.post("/v1/embeddings", json={"model": "embedding-model", "input": wire})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("input")


def test_limits_name_the_field_and_the_limit() -> None:
    limits = LimitSettings(
        max_inputs=2, max_documents=2, max_input_chars=10, max_total_chars=15, max_completions=2
    )
    client = make_client(config=AppConfig(limits=limits))
    rerank = {"model": "rerank-model", "query": "q", "documents": ["d"] * 3}
    for path, body, param, limit in (
        ("/v1/embeddings", EMBED | {"input": ["a"] * 3}, "input", "2"),
        ("/v1/embeddings", EMBED | {"input": "a" * 11}, "input", "10"),
        ("/v1/embeddings", EMBED | {"input": ["a" * 8] * 2}, "input", "15"),
        ("/v1/rerank", rerank, "documents", "2"),
        ("/v1/rerank", rerank | {"query": "q" * 11, "documents": ["d"]}, "query", "10"),
        ("/v1/completions", {"model": "chat-model", "prompt": ["a"] * 3}, "prompt", "2"),
    ):
        response = client.post(path, json=body)
        assert response.status_code == 400, body
        error = response.json()["error"]
        assert error["param"] == param
        assert limit in error["message"]


async def rank(model_id: str, requests: list[Any]) -> list[Any]:
    logits = (-1.0, 3.0, 0.0, 3.0)
    return [
        RerankResult(logits, tuple(1 / (1 + np.exp(-x)) for x in logits), Usage(40))
        for _ in requests
    ]


RERANK = {"model": "rerank-model", "query": "q", "documents": ["a", "b", {"text": "c"}, "d"]}


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_rerank_sorts_and_returns_every_document(path: str) -> None:
    reply = make_client({"rerank": FakeReplicas({"rank": rank})}).post(path, json=RERANK).json()
    assert [result["index"] for result in reply["results"]] == [1, 3, 2, 0]
    assert reply["results"][0]["relevance_score"] == pytest.approx(0.9526, abs=1e-4)
    assert all(set(result) == {"index", "relevance_score"} for result in reply["results"])
    assert reply["meta"]["api_version"]["version"] == ("2" if path == "/v2/rerank" else "1")
    assert reply["usage"]["total_tokens"] == 40


def test_rerank_options() -> None:
    client = make_client({"rerank": FakeReplicas({"rank": rank})})
    body = RERANK | {"top_n": 2, "return_documents": True, "raw_scores": True}
    results = client.post("/v1/rerank", json=body).json()["results"]
    assert [(r["index"], r["relevance_score"]) for r in results] == [(1, 3.0), (3, 3.0)]
    assert results[0]["document"] == {"text": "b"}
    assert len(client.post("/v1/rerank", json=RERANK | {"top_k": 1}).json()["results"]) == 1


@pytest.mark.parametrize("documents", [[], [""], [{"text": ""}], [1], [{}], "text"])
def test_bad_documents(documents: Any) -> None:
    response = make_client().post("/v1/rerank", json=RERANK | {"documents": documents})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("documents")


IMAGE = b"\x89PNG\r\n\x1a\n as far as the ingress looks"
LINE = TextLine("Héllo", 0.9, ((1, 2), (11, 2), (11, 8), (1, 8)))
BELOW = replace(LINE, polygon=((1, 9), (11, 9), (11, 15), (1, 15)))


async def recognize(model_id: str, requests: list[Any]) -> list[Any]:
    return [
        OcrResult(tuple(Page(100, 50, (LINE, BELOW)) for _ in request.images))
        for request in requests
    ]


def test_ocr_in_mistrals_shape() -> None:
    replicas = FakeReplicas({"recognize": recognize})
    uri = "data:image/png;base64," + base64.b64encode(IMAGE).decode()
    for image_url in (uri, {"url": uri}):
        document = {"type": "image_url", "image_url": image_url}
        reply = make_client({"ocr": replicas}).post("/v1/ocr", json={"document": document}).json()
        (page,) = reply["pages"]
        assert page["markdown"] == "Héllo\nHéllo"
        assert page["dimensions"] == {"dpi": 72, "height": 50, "width": 100}
        assert page["lines"][0]["polygon"] == [[1, 2], [11, 2], [11, 8], [1, 8]]
        assert reply["usage_info"] == {"pages_processed": 1, "doc_size_bytes": len(IMAGE)}
    assert replicas.calls[0][1][1][0].images == (IMAGE,)


def test_ocr_in_the_predecessors_shape() -> None:
    client = make_client({"ocr": FakeReplicas({"recognize": recognize})})
    encoded = base64.b64encode(IMAGE).decode()
    images = [encoded, f"data:image/png;base64,{encoded}"]
    body = {"model": "ocr-model", "images": images, "languages": ["en"], "return_boxes": True}
    reply = client.post("/v1/ocr", json=body).json()
    assert [item["index"] for item in reply["data"]] == [0, 1]
    assert reply["data"][0]["boxes"][0] == {
        "x1": 1,
        "y1": 2,
        "x2": 11,
        "y2": 8,
        "text": "Héllo",
        "confidence": 0.9,
    }
    assert reply["usage"] == {"images_processed": 2}
    reply = client.post("/v1/ocr", json=body | {"return_boxes": False}).json()
    assert reply["data"][0]["boxes"] is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"images": []},
        {"images": ["not base64!"]},
        {"images": ["data:image/png,raw"]},
        {"images": ["QQ=="], "document": {"type": "image_url", "image_url": "data:;base64,QQ=="}},
        {"document": {"type": "image_url", "image_url": "http://127.0.0.1/x.png"}},
        {"document": {"type": "image_url", "image_url": "file:///etc/passwd"}},
        {"document": {"type": "image_url"}},
        {"images": ["QQ=="] * 17},
    ],
    ids=str,
)
def test_bad_ocr_bodies(body: dict[str, Any]) -> None:
    replicas = FakeReplicas({"recognize": recognize})
    response = make_client({"ocr": replicas}).post("/v1/ocr", json=body)
    assert response.status_code == 400
    assert not replicas.calls


INFO = DetectorInfo(
    name="pump",
    backend="isolation_forest",
    version=3,
    created=1,
    size_bytes=10,
    samples=100,
    features=("a", "b"),
    schema=(("a", "numeric"), ("b", "numeric")),
    contamination=0.1,
    threshold=0.5,
    normalization="standardization",
    fit_seconds=0.25,
)


async def score(model_id: str, requests: list[Any]) -> list[Any]:
    return [
        AnomalyScores(
            array("d", (0.1, 0.9)), array("d", (1.0, 2.0)), 0.5, 3, anomalous=(False, True)
        )
        if request.name == "pump"
        else ModelNotFoundError(request.name)
        for request in requests
    ]


def anomaly() -> FakeReplicas:
    async def fit(model_id: str, request: Any) -> DetectorInfo:
        if request.backend == "bad":
            raise InvalidInputError("no such backend", "backend")
        return INFO

    async def list_detectors(model_id: str) -> list[DetectorInfo]:
        return [INFO]

    async def get_detector(model_id: str, name: str) -> DetectorInfo:
        if name != "pump":
            raise ModelNotFoundError(name)
        return INFO

    async def delete_detector(model_id: str, name: str) -> None:
        await get_detector(model_id, name)

    async def aliases(model_id: str) -> dict[str, str]:
        return {}

    methods = (fit, score, list_detectors, get_detector, delete_detector, aliases)
    return FakeReplicas({method.__name__: method for method in methods})


def test_anomaly_fit() -> None:
    replicas = anomaly()
    body = {
        "model": "pump",
        "data": [{"b": 1, "a": 2.5}, {"a": 3, "b": 4}],
        "schema": {"a": "numeric"},
        "parameters": {"n_estimators": 50},
    }
    reply = make_client({"anomaly": replicas}).post("/v1/anomaly/fit", json=body).json()
    assert reply["samples_fitted"] == 100
    assert reply["training_time_ms"] == 250
    assert reply["encoder"] == {
        "features": ["a", "b"],
        "schema": {"a": "numeric", "b": "numeric"},
    }
    request = replicas.calls[0][1][1]
    assert request.table == Table(((1, 2.5), (4, 3)), ("b", "a"))
    assert request.schema == (("a", "numeric"),)
    assert request.parameters == (("n_estimators", 50),)


def test_anomaly_score_and_detect() -> None:
    client = make_client({"anomaly": anomaly()})
    body = {"model": "pump", "data": [[1, 2], [3, 4]]}
    reply = client.post("/v1/anomaly/score", json=body).json()
    assert [row["is_anomaly"] for row in reply["data"]] == [False, True]
    assert reply["summary"] == {
        "total_points": 2,
        "anomaly_count": 1,
        "anomaly_rate": 0.5,
        "threshold": 0.5,
    }
    reply = client.post("/v1/anomaly/detect", json=body).json()
    assert [row["index"] for row in reply["data"]] == [1]
    assert reply["version"] == 3
    assert client.post("/v1/anomaly/score", json=body | {"model": "gone"}).status_code == 404


@pytest.mark.parametrize(
    "data",
    [[], [[]], [1], [{"a": 1}, {"b": 1}], [{"a": 1}, {"a": 1, "b": 2}], [[[1]]], "x", [[1], {}]],
    ids=str,
)
def test_bad_rows_never_reach_a_replica(data: Any) -> None:
    replicas = anomaly()
    response = make_client({"anomaly": replicas}).post(
        "/v1/anomaly/score", json={"model": "pump", "data": data}
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("data")
    assert not replicas.calls


def test_fitted_detectors() -> None:
    client = make_client({"anomaly": anomaly()})
    assert client.get("/v1/anomaly/models").json()["data"][0]["id"] == "pump"
    assert client.get("/v1/anomaly/models/pump").json()["version"] == 3
    assert client.get("/v1/anomaly/models/other").status_code == 404
    assert client.delete("/v1/anomaly/models/pump").json()["deleted"] is True
    assert client.delete("/v1/anomaly/models/other").status_code == 404
    for name in ("..", "a/b", "..%2F..", "%21%21%21"):
        assert client.delete(f"/v1/anomaly/models/{name}").status_code in {400, 404, 405}


def test_models() -> None:
    loaded = ReplicaStatus(
        "embedding", "r1", 7, (ModelStatus("embedding-model", "loaded", 100, 1.0),)
    )
    failed = ReplicaStatus(
        "embedding", "r2", 8, (ModelStatus("embedding-model", "failed", reason="no memory"),)
    )
    client = make_client({"embedding": FakeReplicas(statuses=[failed, loaded])})
    reply = client.get("/v1/models").json()
    assert reply["object"] == "list"
    models = {model["id"]: model for model in reply["data"]}
    assert set(models) > {"chat-model", "embedding-model"}
    for model in models.values():
        Model.model_validate(model)
    assert models["chat-model"]["state"] == "unloaded"
    mine = models["embedding-model"]
    assert (mine["state"], mine["memory_bytes"], mine["replicas"]) == ("loaded", 100, 1)


def test_model_ids_may_contain_slashes() -> None:
    client = make_client()
    assert client.get("/v1/models/vendor/chat-model").json()["id"] == "chat-model"
    response = client.get("/v1/models/vendor/other")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_health_asks_nobody_and_ready_asks_the_cluster() -> None:
    states = [DeploymentState("Ingress", "HEALTHY", 1), DeploymentState("Embedding", "HEALTHY", 0)]
    status = ReplicaStatus("embedding", "r", 1, (ModelStatus("embedding-model", "loading"),))
    client = make_client(
        {"embedding": FakeReplicas(statuses=[status])}, cluster=FakeCluster(states)
    )
    assert client.get("/health").json() == {"status": "ok"}
    reply = client.get("/ready")
    assert reply.status_code == 200
    assert reply.json()["deployments"]["Embedding"] == {
        "status": "healthy",
        "replicas": 0,
        "starting": 0,
    }
    assert reply.json()["models"] == [{"id": "embedding-model", "state": "loading", "reason": None}]


def test_not_ready_while_a_deployment_is_unhealthy() -> None:
    client = make_client(cluster=FakeCluster([DeploymentState("Ocr", "UNHEALTHY", 0)]))
    assert client.get("/ready").status_code == 503
    assert client.get("/ready").json()["ready"] is False
    assert client.get("/health").status_code == 200
