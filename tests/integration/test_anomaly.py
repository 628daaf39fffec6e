"""Anomaly detection on the real graph: deaths of children, replicas and of the whole server."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pytest
import yaml

from tests.integration.conftest import (
    ROOT,
    RunningServer,
    kill_everything,
    started,
    write_config,
)
from tests.processes import cpu_seconds, ended

ROWS = np.random.default_rng(0).normal(size=(300, 4))
POINT = [[0.5, -1.0, 9.0, 0.25]]
SLOW = np.random.default_rng(1).normal(size=(40_000, 8))
WAIT_S = 180.0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a server that serves nothing else, so that it starts without weights."""
    folder = tmp_path_factory.mktemp("anomaly")
    path = write_config(folder, {})
    document = yaml.safe_load(path.read_text())
    catalog = folder / "catalog.yaml"
    shipped = yaml.safe_load((ROOT / "config" / "catalog.yaml").read_text())
    shipped["models"] = [entry for entry in shipped["models"] if entry["task"] == "anomaly"]
    catalog.write_text(yaml.safe_dump(shipped))
    document["applications"][0]["args"]["catalog"] = str(catalog)
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def server(config: Path) -> Iterator[RunningServer]:
    with started(config) as running:
        yield running


def post(server: RunningServer, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = server.client.post(f"/v1/anomaly/{path}", json=body)
    assert reply.status_code in (200, 202), reply.text
    found: dict[str, Any] = reply.json()
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def workers(server: RunningServer) -> list[psutil.Process]:
    """The child processes of replicas that fit."""
    return server.running("anomaly/worker.py")


def busy_worker(server: RunningServer) -> psutil.Process:
    """The child that computes, once there is one."""

    def busy() -> bool:
        return any(cpu_seconds(worker) > 3 for worker in workers(server))

    until(busy)
    return max(workers(server), key=cpu_seconds)


def slow_fit(server: RunningServer, **fields: Any) -> dict[str, Any]:
    return {"model": "pump", "backend": "one_class_svm", "data": SLOW.tolist(), **fields}


def test_scores_survive_the_replica_and_the_server(config: Path) -> None:
    with started(config) as server:
        fit = {"model": "kept", "data": ROWS.tolist(), "backend": "isolation_forest"}
        post(server, "fit", fit)
        point = {"model": "kept", "data": POINT, "explain": True}
        before = post(server, "score", point)
        feed = {"model": "flow", "data": ROWS[:60].tolist(), "min_samples": 50}
        assert post(server, "stream", feed)["status"] == "ready"
        judged = post(server, "stream", {"model": "flow", "data": POINT, "min_samples": 50})

        [replica] = server.replicas("Anomaly")
        replica.kill()
        assert post(server, "score", point) == before
        assert server.client.get("/v1/anomaly/stream/flow").json()["samples_collected"] == 61
        kill_everything(server)

    with started(config) as server:
        assert post(server, "score", point) == before
        again = post(server, "stream", {"model": "flow", "data": POINT, "min_samples": 50})
        assert again["samples_collected"] == 62
        assert again["results"] == judged["results"]


def test_a_dead_child_is_an_error_and_scoring_goes_on(server: RunningServer) -> None:
    post(server, "fit", {"model": "pump", "data": ROWS.tolist(), "backend": "ecod"})
    before = post(server, "score", {"model": "pump", "data": POINT})
    job = post(server, "fit", slow_fit(server, background=True))
    worker = busy_worker(server)
    assert post(server, "score", {"model": "pump", "data": POINT}) == before
    worker.kill()

    def state() -> dict[str, Any]:
        found: dict[str, Any] = server.client.get(f"/v1/anomaly/jobs/{job['id']}").json()
        return found

    until(lambda: state()["status"] == "failed")
    assert state()["error"]["code"] == "fit_crashed"
    assert post(server, "score", {"model": "pump", "data": POINT}) == before


def test_a_client_that_leaves_ends_its_fit(server: RunningServer) -> None:
    post(server, "fit", {"model": "pump", "data": ROWS.tolist(), "backend": "ecod"})
    version = server.client.get("/v1/anomaly/models/pump").json()["version"]
    body = slow_fit(server, stream=True)
    with server.client.stream("POST", "/v1/anomaly/fit", json=body) as reply:
        lines = reply.iter_lines()
        assert json.loads(next(lines).removeprefix("data: "))["stage"] == "started"
        worker = busy_worker(server)
    until(lambda: ended(worker))
    assert server.client.get("/v1/anomaly/models/pump").json()["version"] == version


def test_a_replica_that_dies_takes_its_jobs_with_it(server: RunningServer) -> None:
    job = post(server, "fit", slow_fit(server, background=True))
    worker = busy_worker(server)
    [replica] = server.replicas("Anomaly")
    replica.kill()
    until(lambda: ended(worker))

    def failed() -> bool:
        """Until another replica tells of it, the answer may be to ask again."""
        reply = server.client.get(f"/v1/anomaly/jobs/{job['id']}")
        if reply.status_code == 503:
            return False
        found = reply.json()
        return bool(found["status"] == "failed" and found["error"]["code"] == "engine_died")

    until(failed)


def test_large_files_travel_both_ways(server: RunningServer) -> None:
    rows = np.random.default_rng(2).normal(size=(60_000, 20))
    table = pa.table({str(index): rows[:, index] for index in range(20)})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    kind = "application/vnd.apache.arrow.stream"
    headers = {"content-type": kind, "accept": kind}
    options: dict[str, Any] = {"content": sink.getvalue(), "headers": headers}
    fitted = server.client.post("/v1/anomaly/fit?model=bulk&backend=hbos", **options)
    assert fitted.status_code == 200, fitted.text
    reply: httpx.Response = server.client.post("/v1/anomaly/score?model=bulk", **options)
    scores = pa.ipc.open_stream(reply.content).read_all()
    assert scores.num_rows == 60_000
    one = post(server, "score", {"model": "bulk@1", "data": [dict(zip(table.column_names, rows[7].tolist(), strict=True))]})  # fmt: skip  # noqa: E501
    assert scores.column("raw_score")[7].as_py() == one["data"][0]["raw_score"]
