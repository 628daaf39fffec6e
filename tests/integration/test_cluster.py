"""The real graph on a Ray cluster of two nodes: placement, redeployment, the loss of a node.

The nodes share this machine, hence its ports: HAProxy runs on the head only, where a cluster of
machines has one on every node. Engines are toys; detectors and their store are real.
"""

from __future__ import annotations

import base64
import io
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from PIL import Image

from launcher.edge import haproxy_binary
from launcher.front import Front
from tests.ports import quiet_port
from tests.processes import ended
from tests.ray_cluster import PATIENCE_S, Node, RayCluster, wait_until

ROOT = Path(__file__).parents[2]
ON_GPU = {"Embedding", "Anomaly"}
CODES = {"engine_died", "server_unavailable", "model_load_failed", "model_loading"}
PAUSE_S = 0.1
DRAIN = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3"}
"""A replica of the ingress goes on answering until every HAProxy knows that it leaves."""


def png_url() -> str:
    """A small grey picture."""
    file = io.BytesIO()
    Image.new("L", (80, 30), 60).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


CHAT = {"messages": [{"role": "user", "content": "Which way?"}], "temperature": 0}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "generation": ("/v1/chat/completions", {"model": "toy-generation", **CHAT}),
    "embedding": ("/v1/embeddings", {"model": "toy-embedding", "input": "a text"}),
    "rerank": ("/v1/rerank", {"model": "toy-rerank", "query": "a b", "documents": ["a", "b c"]}),
    "classification": ("/v1/classify", {"model": "toy-classification", "input": "good"}),
    "ocr": (
        "/v1/ocr",
        {"model": "toy-ocr", "document": {"type": "image_url", "image_url": png_url()}},
    ),
    "anomaly": ("/v1/anomaly/score", {"model": "pumps", "data": [[1.0, 2.0], [40.0, 9.0]]}),
}
RESULT = {
    "generation": "choices", "embedding": "data", "rerank": "results",
    "classification": "data", "ocr": "pages", "anomaly": "data",
}  # fmt: skip
"""Where an answer has what must never change; the rest are ids, times and usage."""
ROWS = [[float(index % 7), float(index % 5)] for index in range(60)]


@dataclass(frozen=True, slots=True)
class Reply:
    task: str
    begun: float
    """On the monotonic clock."""
    response: httpx.Response | None
    """None: there was none."""
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.response is not None and self.response.status_code == 200

    def __str__(self) -> str:
        if self.response is None:
            return f"{self.begun:.3f} {self.task}: {self.error}"
        return f"{self.begun:.3f} {self.task}: {self.response.status_code} {self.response.text}"

    @property
    def result(self) -> Any:
        assert self.response is not None
        return self.response.json()[RESULT[self.task]]


@dataclass
class Deployed:
    """The cluster with the application on it; clients reach it through the front."""

    cluster: RayCluster
    gpu_node: Node
    config: Path
    document: dict[str, Any]
    front_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.front_port}"

    def deploy(self) -> None:
        self.config.write_text(yaml.safe_dump(self.document))
        self.cluster.serve_deploy(self.config)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=PATIENCE_S)

    def ingresses(self) -> list[psutil.Process]:
        replicas = self.cluster.replicas()
        return [psutil.Process(pid) for pid, name in replicas.items() if name == "Ingress"]

    def running(self) -> bool:
        if self.cluster.application().get("status") != "RUNNING":
            return False
        return httpx.get(self.url + "/health", timeout=PATIENCE_S).status_code == 200


def toy(task: str) -> dict[str, Any]:
    engine = "detectors" if task == "anomaly" else "toy"
    return {"id": f"toy-{task}", "task": task, "engine": engine, "source": {"kind": "builtin"}}


def document(folder: Path, port: int) -> dict[str, Any]:
    """The shipped configuration with a catalogue of toys; two tasks want a share of a GPU."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    content["proxy_location"] = "HeadOnly"
    content["http_options"]["port"] = port
    content["applications"][0]["runtime_env"]["env_vars"] |= DRAIN
    catalog = folder / "catalog.yaml"
    catalog.write_text(yaml.safe_dump({"models": [toy(task) for task in REQUESTS]}))
    args = content["applications"][0]["args"]
    args |= {"catalog": str(catalog), "data_dir": str(folder / "shared")}
    args |= {"ingress": {"num_replicas": 2}, "deadlines": {"drain_s": 120}}
    for task in REQUESTS:
        args[task]["num_gpus"] = 0.2 if task.capitalize() in ON_GPU else 0
    return content


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("cluster")
    with tempfile.TemporaryDirectory(prefix="cluster-", ignore_cleanup_errors=True) as short:
        cluster = RayCluster(Path(short), folder)
        front: Front | None = None
        try:
            cluster.start_head(cpus=2)
            node = cluster.add_node(cpus=2, gpus=1)
            content = document(folder, cluster.http_port)
            port = quiet_port()
            front = Front(haproxy_binary(), "127.0.0.1", port, cluster.http_port, Path(short))
            front.start()
            front.open()
            config = folder / "serve_config.yaml"
            application = Deployed(cluster, node, config, content, port)
            application.deploy()
            wait_until(application.running, "the application runs")
            wait_until(node.started, "the second node has joined")
            fit = {"model": "pumps", "backend": "isolation_forest", "data": ROWS}
            reply = application.post("/v1/anomaly/fit", fit)
            assert reply.status_code == 200, reply.text
            yield application
        finally:
            if front is not None:
                front.stop()
            cluster.end()


def ask(url: str, task: str) -> Reply:
    """One request on a connection of its own: an idle one may be closed while it is used."""
    path, body = REQUESTS[task]
    begun = time.monotonic()
    try:
        return Reply(task, begun, httpx.post(url + path, json=body, timeout=2 * PATIENCE_S))
    except httpx.TransportError as error:
        return Reply(task, begun, None, repr(error))


@contextmanager
def load(deployed: Deployed) -> Iterator[list[Reply]]:
    """One client per task asks again and again; the list grows, and is complete afterwards."""
    replies: list[Reply] = []
    done = threading.Event()

    def client_of(task: str) -> None:
        while not done.wait(PAUSE_S):
            replies.append(ask(deployed.url, task))

    threads = [threading.Thread(target=client_of, args=(task,)) for task in REQUESTS]
    for thread in threads:
        thread.start()
    try:
        yield replies
    finally:
        done.set()
        for thread in threads:
            thread.join()


def all_answered_since(replies: list[Reply], start: float) -> bool:
    """Whether every task has answered a request that was sent after `start`."""
    return {r.task for r in list(replies) if r.ok and r.begun > start} == set(REQUESTS)


def assert_same_results(replies: list[Reply]) -> None:
    """Every answer of a task, whichever replica on whichever node gave it, is the same."""
    for task in REQUESTS:
        results = [reply.result for reply in replies if reply.task == task and reply.ok]
        assert results
        assert all(result == results[0] for result in results), task


def test_rays_own_ports_want_the_token(deployed: Deployed) -> None:
    """The dashboard that `serve deploy` speaks to, and the agent that would run any command."""
    applications = f"{deployed.cluster.dashboard}/api/serve/applications/"
    assert httpx.get(applications, timeout=PATIENCE_S).status_code == 401
    other = {"Authorization": "Bearer " + "0" * 64}
    assert httpx.get(applications, headers=other, timeout=PATIENCE_S).status_code == 403
    assert deployed.cluster.application()["status"] == "RUNNING"
    jobs = f"{deployed.cluster.agent}/api/job_agent/jobs/"
    job = {"entrypoint": "true"}
    assert httpx.post(jobs, json=job, timeout=PATIENCE_S).status_code == 401


def test_the_probes_of_the_pods_answer_without_a_token(deployed: Deployed) -> None:
    text = (ROOT / "deploy" / "kuberay" / "rayservice.yaml").read_text()
    probes = set(re.findall(r"httpGet: \{port: (\d+), path: (\S+)\}", text))
    here = {
        "8265": deployed.cluster.dashboard,
        "52365": deployed.cluster.agent,
        "8000": f"http://127.0.0.1:{deployed.cluster.http_port}",
    }
    assert {port for port, _ in probes} == set(here)
    for port, path in probes:
        assert httpx.get(here[port] + path, timeout=PATIENCE_S).status_code == 200, path


def test_a_redeployment_under_load_fails_no_request(deployed: Deployed) -> None:
    with load(deployed) as replies:
        wait_until(lambda: all_answered_since(replies, 0), "every task answers")
        before = set(deployed.cluster.replicas())
        deployed.document["applications"][0]["args"]["limits"] = {"max_inputs": 3}
        deployed.deploy()
        wait_until(lambda: not before & set(deployed.cluster.replicas()), "all replicas are new")
        replaced = time.monotonic()
        wait_until(lambda: all_answered_since(replies, replaced), "every task answers again")
    assert [str(reply) for reply in replies if not reply.ok] == []
    assert_same_results(replies)
    too_many = deployed.post("/v1/embeddings", {"model": "toy-embedding", "input": ["a"] * 4})
    assert too_many.status_code == 400, "the new settings are in force"


def test_tasks_that_want_a_gpu_run_where_one_is(deployed: Deployed) -> None:
    for path, body in REQUESTS.values():
        assert deployed.post(path, body).status_code == 200
    here = set(deployed.gpu_node.replicas().values())
    everywhere = list(deployed.cluster.replicas().values())
    assert here >= ON_GPU
    assert all(everywhere.count(name) == 1 for name in ON_GPU)


def test_the_loss_of_every_ingress(deployed: Deployed) -> None:
    """What is asked when they are gone waits for those that come."""
    wait_until(lambda: len(deployed.ingresses()) == 2, "both are there")
    lost = deployed.ingresses()
    for process in lost:
        process.kill()
    wait_until(lambda: all(map(ended, lost)), "both have ended")
    for task, (path, body) in REQUESTS.items():
        assert deployed.post(path, body).status_code == 200, task


def test_the_loss_of_a_node(deployed: Deployed) -> None:
    """Its tasks come back on the others; what was fitted on it is scored by its replacement."""
    with load(deployed) as replies:
        wait_until(lambda: all_answered_since(replies, 0), "every task answers")
        assert set(deployed.gpu_node.replicas().values()) >= ON_GPU
        deployed.gpu_node.end()
        lost = time.monotonic()
        deployed.gpu_node = deployed.cluster.add_node(cpus=2, gpus=1)
        wait_until(deployed.gpu_node.started, "another node has joined")
        wait_until(lambda: all_answered_since(replies, lost), "every task answers again")
    assert_same_results(replies)
    assert set(deployed.gpu_node.replicas().values()) >= ON_GPU
    assert_only_the_gap_is_seen(replies, lost)


def assert_only_the_gap_is_seen(replies: list[Reply], lost: float) -> None:
    """What was under way when the node was lost may be a 503; all else is answered."""
    failed = [reply for reply in replies if not reply.ok]
    shown = "\n".join(map(str, failed))
    assert all(reply.begun <= lost for reply in failed), f"lost at {lost:.3f}\n{shown}"
    for reply in failed:
        assert reply.response is not None, str(reply)
        assert reply.response.status_code == 503, str(reply)
        assert reply.response.json()["error"]["code"] in CODES
        assert int(reply.response.headers["retry-after"]) >= 1
