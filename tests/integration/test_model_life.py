"""The life of models on a real server: idle times of a second or two, models that weigh nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.conftest import (
    ROOT,
    STOP_S,
    RunningServer,
    start,
    wait_until_healthy,
)

RACE_S = 18.0
PATIENCE_S = 120.0
LOAD_S, LATE_S = 40, 60
CATALOG = {
    "models": [
        {"id": f"toy-{task}", "task": task, "engine": "toy", "source": {"kind": "builtin"}}
        for task in ("generation", "embedding", "rerank", "classification", "ocr")
    ]
}
SETTINGS: dict[str, Any] = {
    "preload": ["toy-classification"],
    "deadlines": {"load_s": LOAD_S},
    "generation": {"num_cpus": 0, "idle_timeout_s": 1},
    "embedding": {"num_cpus": 0, "idle_timeout_s": 1},
    "rerank": {"num_cpus": 0, "idle_timeout_s": 2},
    "classification": {"num_cpus": 0, "idle_timeout_s": 1},
    "ocr": {"num_cpus": 10_000},
}
RERANK = {"model": "toy-rerank", "query": "a", "documents": ["a b", "c"], "keep_alive": 600}
"""Until it is unpinned, so that it is still there when it is looked at."""
CLASSIFY = {"model": "toy-classification", "input": "good"}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of its own, whose OCR needs more CPUs than there are."""
    folder = tmp_path_factory.mktemp("toys")
    running = start(_config(folder))
    try:
        wait_until_healthy(running)
        yield running
    finally:
        running.client.close()
        running.process.terminate()
        until(lambda: "Once more ends at once" in running.log.read_text(), "stopping")
        running.process.terminate()  # Serve would wait for the replica that cannot start
        running.process.wait(STOP_S)


@pytest.fixture(scope="module", autouse=True)
def asleep(toys: RunningServer) -> Iterator[Future[tuple[float, httpx.Response]]]:
    """A request for a task that cannot wake, from the beginning on."""
    body = {"model": "toy-ocr", "images": ["iVBORw0KGgo="]}

    def ask() -> tuple[float, httpx.Response]:
        begun = time.monotonic()
        reply = httpx.post(f"{toys.url}/v1/ocr", json=body, timeout=200)
        return time.monotonic() - begun, reply

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(ask)


def _config(folder: Path) -> Path:
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    catalog = folder / "catalog.yaml"
    catalog.write_text(yaml.safe_dump(CATALOG))
    document["applications"][0]["args"] = SETTINGS | {
        "catalog": str(catalog),
        "data_dir": str(folder / "data"),
    }
    path = folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def model(server: RunningServer, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = server.client.get(f"/v1/models/{name}").json()
    return shown


def post(server: RunningServer, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = server.client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.1)


def test_a_preloaded_model_is_there_before_anybody_asks(toys: RunningServer) -> None:
    until(lambda: model(toys, "toy-classification")["state"] == "loaded", "preload")
    shown = model(toys, "toy-classification")
    assert (shown["pinned"], shown["replicas"], shown["expires_in_s"]) == (True, 1, None)
    [instance] = shown["instances"]
    assert instance["replica"]
    assert instance["node"]


def test_a_model_leaves_its_replica_and_comes_back(toys: RunningServer) -> None:
    post(toys, "/v1/classify", CLASSIFY)
    [replica] = toys.replicas("Classification")
    post(toys, "/v1/classify", CLASSIFY | {"keep_alive": 0})
    until(lambda: model(toys, "toy-classification")["state"] == "unloaded", "keep_alive of 0")
    assert [process.pid for process in toys.replicas("Classification")] == [replica.pid]
    post(toys, "/v1/classify", CLASSIFY)
    assert model(toys, "toy-classification")["state"] == "loaded"
    assert post(toys, "/v1/models/unload", {"model": "toy-classification"})["state"] == "unloaded"


def test_a_herd_on_a_sleeping_task_loads_one_model_and_a_pin_keeps_it(toys: RunningServer) -> None:
    async def herd() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=toys.url, timeout=200) as http:
            return await asyncio.gather(*(http.post("/v1/rerank", json=RERANK) for _ in range(20)))

    assert Counter(reply.status_code for reply in asyncio.run(herd())) == {200: 20}
    assert model(toys, "toy-rerank")["replicas"] == 1

    assert post(toys, "/v1/models/pin", {"model": "toy-rerank"})["pinned"] is True
    [replica] = toys.replicas("Rerank")
    post(toys, "/v1/embeddings", {"model": "toy-embedding", "input": "a"})
    until(lambda: not toys.replicas("Embedding"), "an unpinned task sleeps")
    time.sleep(2 * SETTINGS["rerank"]["idle_timeout_s"])  # long enough for the pinned one too
    assert [process.pid for process in toys.replicas("Rerank")] == [replica.pid]
    assert model(toys, "toy-rerank")["state"] == "loaded"

    post(toys, "/v1/models/unpin", {"model": "toy-rerank"})
    until(lambda: not toys.replicas("Rerank"), "an unpinned model lets its task sleep")


def test_no_request_is_lost_between_the_last_idle_second_and_the_next(toys: RunningServer) -> None:
    """Requests meet a replica at the moment in which Serve begins to stop it."""
    embed = ("/v1/embeddings", {"model": "toy-embedding", "input": "a"})
    chat = {"model": "toy-generation", "messages": [{"role": "user", "content": "a"}]}
    replies: list[httpx.Response] = []

    async def until_stopping(http: httpx.AsyncClient, name: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (await http.get("/ready")).json()["deployments"][name]["replicas"]:
                continue

    async def race(http: httpx.AsyncClient, name: str, path: str, body: dict[str, Any]) -> None:
        end = time.monotonic() + RACE_S
        while time.monotonic() < end:
            replies.append(await http.post(path, json=body))
            await until_stopping(http, name)
            replies.extend(await asyncio.gather(*(http.post(path, json=body) for _ in range(3))))

    async def races() -> None:
        async with httpx.AsyncClient(base_url=toys.url, timeout=200) as http:
            await asyncio.gather(
                race(http, "Embedding", *embed),
                race(http, "Generation", "/v1/chat/completions", chat | {"max_tokens": 4}),
            )

    asyncio.run(races())
    assert [reply.text for reply in replies if reply.status_code != 200] == []


def test_a_task_that_cannot_wake_is_answered_in_time(
    asleep: Future[tuple[float, httpx.Response]],
) -> None:
    seconds, reply = asleep.result(2 * PATIENCE_S)
    assert reply.status_code == 503, reply.text
    assert reply.json()["error"]["code"] == "model_loading"
    assert int(reply.headers["retry-after"]) >= 1
    assert LOAD_S <= seconds < LOAD_S + LATE_S
