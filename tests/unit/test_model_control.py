"""The routes that show models and move them; the replicas are fakes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from deployments.model_cache.slot import PINNED
from models.errors import ModelLoadError
from models.types.status import ModelStatus, ReplicaStatus
from tests.fakes import FakeReplicas, make_client

MODEL = "embedding-model"
LOADING = [
    ModelStatus(MODEL, "downloading", done_bytes=10, total_bytes=40),
    ModelStatus(MODEL, "loading"),
]
LOADED = ModelStatus(MODEL, "loaded", 100, load_seconds=2.0, expires_in_s=300.0)


def replica(name: str, *models: ModelStatus) -> ReplicaStatus:
    return ReplicaStatus("embedding", name, 1, models, f"node-of-{name}")


def control(
    steps: list[ModelStatus | Exception] | None = None, *statuses: ReplicaStatus
) -> tuple[Any, FakeReplicas]:
    async def progress(model_id: str) -> AsyncGenerator[ModelStatus]:
        for step in steps or []:
            if isinstance(step, Exception):
                raise step
            yield step

    replicas = FakeReplicas(
        streams={"load_model": progress, "download_model": progress}, statuses=list(statuses)
    )
    return make_client({"embedding": replicas}), replicas


def events(reply: Any) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_models_are_shown_with_where_they_are() -> None:
    http, _ = control(
        [],
        replica("r1", LOADED),
        replica("r2", ModelStatus(MODEL, "loaded", 90, in_flight=3, pinned=True)),
        replica("r3", LOADING[0]),
    )
    shown = http.get(f"/v1/models/{MODEL}").json()
    assert (shown["state"], shown["memory_bytes"], shown["replicas"]) == ("loaded", 190, 2)
    assert (shown["pinned"], shown["in_flight"], shown["expires_in_s"]) == (True, 3, 300.0)
    assert shown["percent"] == 25.0
    assert [(i["replica"], i["node"], i["state"]) for i in shown["instances"]] == [
        ("r1", "node-of-r1", "loaded"),
        ("r2", "node-of-r2", "loaded"),
        ("r3", "node-of-r3", "downloading"),
    ]
    listed = {entry["id"]: entry for entry in http.get("/v1/models").json()["data"]}
    assert listed[MODEL] == shown
    assert listed["rerank-model"]["state"] == "unloaded"
    assert listed["rerank-model"]["instances"] == []


def test_a_failed_model_says_why() -> None:
    http, _ = control([], replica("r1", ModelStatus(MODEL, "failed", reason="no weights")))
    shown = http.get(f"/v1/models/{MODEL}").json()
    assert (shown["state"], shown["reason"]) == ("failed", "no weights")
    [ready] = http.get("/ready").json()["models"]
    assert ready == {"id": MODEL, "state": "failed", "reason": "no weights"}


def test_load_waits_and_shows_the_model() -> None:
    http, replicas = control([*LOADING, LOADED], replica("r1", LOADED))
    reply = http.post("/v1/models/load", json={"model": MODEL})
    assert (reply.status_code, reply.json()["state"]) == (200, "loaded")
    assert replicas.calls == [("load_model", (MODEL,))]


def test_load_tells_of_its_progress() -> None:
    http, replicas = control([*LOADING, LOADED])
    body = {"model": MODEL, "stream": True, "keep_alive": "1h"}
    seen = events(http.post("/v1/models/load", json=body))
    assert [(e["state"], e["percent"]) for e in seen] == [
        ("downloading", 25.0),
        ("loading", None),
        ("loaded", None),
    ]
    assert (seen[0]["model"], seen[0]["done_bytes"], seen[0]["total_bytes"]) == (MODEL, 10, 40)
    assert replicas.calls[-1] == ("keep_model", (MODEL, 3600.0))


@pytest.mark.parametrize("stream", [False, True])
def test_a_load_that_fails_at_once_is_an_error(stream: bool) -> None:
    http, _ = control([ModelLoadError("no weights", retry_after=3)])
    reply = http.post("/v1/models/load", json={"model": MODEL, "stream": stream})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "3")
    assert reply.json()["error"]["code"] == "model_load_failed"


def test_a_load_that_fails_later_ends_its_stream_with_the_error() -> None:
    http, _ = control([*LOADING, ModelLoadError("no weights")])
    reply = http.post("/v1/models/load", json={"model": MODEL, "stream": True})
    last = reply.text.strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_load_failed"


@pytest.mark.parametrize(
    ("route", "calls"),
    [
        ("unload", [("keep_model", (MODEL, 0))]),
        ("pin", [("load_model", (MODEL,)), ("keep_model", (MODEL, PINNED))]),
        ("unpin", [("keep_model", (MODEL, None))]),
    ],
)
def test_unload_pin_unpin(route: str, calls: list[Any]) -> None:
    http, replicas = control([LOADED], replica("r1", LOADED))
    reply = http.post(f"/v1/models/{route}", json={"model": MODEL})
    assert (reply.status_code, reply.json()["id"]) == (200, MODEL)
    assert replicas.calls == calls


def test_download_tells_of_its_progress_unless_asked_not_to() -> None:
    http, replicas = control([LOADING[0]])
    seen = events(http.post("/v1/models/download", json={"model": MODEL}))
    assert [(e["state"], e["percent"]) for e in seen] == [
        ("downloading", 25.0),
        ("downloaded", 100.0),
    ]
    reply = http.post("/v1/models/download", json={"model": MODEL, "stream": False})
    assert reply.json()["state"] == "downloaded"
    assert replicas.calls == [("download_model", (MODEL,))] * 2


@pytest.mark.parametrize("route", ["load", "unload"])
def test_llama_servers_routes(route: str) -> None:
    http, replicas = control([LOADED])
    reply = http.post(f"/models/{route}", json={"model": MODEL})
    assert reply.json() == {"success": True}
    assert len(replicas.calls) == 1


@pytest.mark.parametrize("route", ["load", "unload", "pin", "unpin", "download"])
@pytest.mark.parametrize(
    "name", ["nothing", "../../etc/passwd", "/etc/passwd", "org/repo", "https://example.com/x"]
)
def test_only_models_of_the_catalogue_are_moved(route: str, name: str) -> None:
    http, replicas = control()
    reply = http.post(f"/v1/models/{route}", json={"model": name})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert replicas.calls == []
