"""Metrics and logs of the real graph: what they tell, and what they never do."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest

from deployments.metrics.catalog import CATALOG
from models.documents.png import png
from tests.integration.conftest import RunningServer
from tests.processes import command_line

T = TypeVar("T")
CANARY = "Canary7f3a"
IMAGE = base64.b64encode(f"no image but {CANARY}".encode()).decode()
PATIENCE_S = 120
"""Ray exports every ten seconds, and takes its time where little of it is left."""


def soon(look: Callable[[], T]) -> T:
    """What `look` finds, when it finds something."""
    end = time.monotonic() + PATIENCE_S
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def logs_of(server: RunningServer) -> Path:
    """Where this server's Ray writes."""
    (gcs,) = server.running("gcs/gcs_server")
    (folder,) = re.findall(r"--log_dir=(\S+)", command_line(gcs))
    return Path(folder)


def request_lines(logs: Path) -> Iterator[dict[str, Any]]:
    """Without what is being written at this moment."""
    for path in logs.glob("serve/replica_*Ingress*.log"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            if "http_route" in (said := json.loads(line)):
                yield said


@pytest.fixture(scope="module")
def logs(server: RunningServer) -> Path:
    """After requests of every kind that have the canary wherever a client can put something."""
    client = server.client
    client.headers["x-note"] = client.headers["x-api-key"] = CANARY
    chat = {"messages": [{"role": "user", "content": CANARY}], "max_tokens": 2}
    model = "smollm2-135m-instruct"
    for body in (
        {"model": model, **chat},
        {"model": model, **chat, "stream": True},
        {"model": model, **chat, "temperature": CANARY},
        {"model": CANARY, **chat},
        {"model": model, **chat, "tools": [{"type": "function", "function": {"name": CANARY}}]},
        {"model": model, **chat, "response_format": {"type": CANARY}},
    ):
        client.post("/v1/chat/completions", json=body)
    client.post("/v1/embeddings", json={"model": "all-minilm-l6-v2", "input": CANARY})
    client.post("/v1/embeddings", content=f'{{"input": "{CANARY}')
    ranked = {"model": "ms-marco-minilm-l-12-v2", "query": CANARY, "documents": [CANARY]}
    client.post("/v1/rerank", json=ranked)
    url = {"type": "image_url", "image_url": f"data:image/png;base64,{IMAGE}"}
    client.post("/v1/ocr", json={"model": "pp-ocrv6", "document": url})
    form = {"file": (f"{CANARY}.png", CANARY.encode(), "image/png")}
    client.post("/v1/ocr", files=form, data={"model": CANARY})
    client.post("/v1/files", files=form, data={"purpose": "ocr"})
    client.post("/v1/anomaly/fit", json={"model": CANARY, "data": [[CANARY]]})
    client.get(f"/{CANARY}", params={"q": CANARY})
    client.get(f"/v1/models/{CANARY}")
    del client.headers["x-note"], client.headers["x-api-key"]
    return logs_of(server)


def test_every_request_leaves_a_line_with_its_id(server: RunningServer, logs: Path) -> None:
    request = {"model": "all-minilm-l6-v2", "input": "river"}
    reply = server.client.post("/v1/embeddings", json=request)
    sent = reply.headers["x-request-id"]
    (line,) = soon(lambda: [said for said in request_lines(logs) if said["request_id"] == sent])
    assert (line["method"], line["http_route"]) == ("POST", "/v1/embeddings")
    assert (line["task"], line["model"], line["status"]) == ("embedding", "all-minilm-l6-v2", 200)
    assert line["duration_ms"] > 0
    assert line["prompt_tokens"] == reply.json()["usage"]["prompt_tokens"]


def test_nothing_of_a_request_is_in_any_log(logs: Path) -> None:
    asked = {"/v1/chat/completions", "/v1/ocr", "/v1/files", "none"}
    assert soon(lambda: asked <= {line["http_route"] for line in request_lines(logs)})
    files = [path for path in logs.rglob("*") if path.is_file()]
    assert len(files) > 10
    secrets = (CANARY.encode(), IMAGE[:40].encode())
    found = [path.name for path in files if any(s in path.read_bytes() for s in secrets)]
    assert not found


@pytest.mark.usefixtures("logs")
def test_nothing_of_a_request_is_in_a_command_line(server: RunningServer) -> None:
    processes = [psutil.Process(server.process.pid), *server.descendants()]
    assert not [p for p in processes if CANARY in command_line(p)]


def kinds_in(text: str) -> dict[str, str]:
    """Our metrics and what they are."""
    return dict(re.findall(r"^# TYPE (ray_inference_\w+) (\w+)$", text, re.MULTILINE))


@pytest.mark.usefixtures("logs")
def test_the_metrics_are_those_of_the_catalogue(server: RunningServer) -> None:
    page = base64.b64encode(png(np.full((40, 120, 3), 255, np.uint8))).decode()
    body = {"model": "pp-ocrv6", "images": [page]}
    server.client.post("/v1/ocr", json=body).raise_for_status()

    def exported() -> str:
        """Every process exports its own figures in its own time."""
        text = server.client.get("/metrics").text
        known = 'model="all-minilm-l6-v2"', 'model="smollm2-135m-instruct"', "ray_serve_"
        pages = re.search(r'^ray_inference_batch_items_count\{[^}]*task="ocr"', text, re.MULTILINE)
        everything = pages and all(name in text for name in known) and told <= kinds_in(text).keys()
        return text if everything else ""

    told = {
        "ray_inference_requests_total",
        "ray_inference_request_errors_total",
        "ray_inference_time_to_first_token_seconds",
        "ray_inference_completion_tokens_total",
        "ray_inference_batch_items",
        "ray_inference_model_load_seconds",
        "ray_inference_kv_cells",
    }
    text = soon(exported)
    assert text, "not all of it is exported"
    assert CANARY not in text
    catalogue = {metric.exported_name: metric.kind for metric in CATALOG}
    assert kinds_in(text).items() <= catalogue.items()
    assert "ray_node_" not in text


def test_a_spare_process_becomes_the_next_replica(server: RunningServer) -> None:
    def spares() -> list[int]:
        return [process.pid for process in server.running("ray::IDLE")]

    assert soon(lambda: not server.replicas("Anomaly"))
    assert soon(lambda: len(spares()) == 1)
    [spare] = spares()
    assert server.client.get("/v1/anomaly/backends").status_code == 200
    assert [replica.pid for replica in server.replicas("Anomaly")] == [spare]
    assert soon(lambda: len(spares()) == 1), "another takes its place"
