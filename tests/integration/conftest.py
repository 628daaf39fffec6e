"""One real server for all of these tests: the launcher, the shipped catalogue, the real weights."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from config.catalog import load_catalog
from config.paths import default_weights_dir
from tests.ports import quiet_port
from tests.processes import command_line
from tests.tiny_documents import CORD, RECEIPT, write_donut, write_layout
from weights.cache import WeightsCache
from weights.fetch import fetch

ROOT = Path(__file__).parents[2]
START_S = 300
STOP_S = 180
"""More than the launcher gives itself."""
QUICKLY_IDLE = {"anomaly": 12}
"""Seconds after which a task scales to zero; the others keep their replica as long as tests come
one after another."""


@dataclass
class RunningServer:
    """The server under test. `processes` are those of its session, whatever they are."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=300)

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """The processes of a deployment's replicas: Ray names them in their title."""
        return self.running(f"ray::ServeReplica:inference:{deployment}")

    def running(self, text: str) -> list[psutil.Process]:
        """Its processes that have this text in their command line."""
        return [p for p in self.descendants() if text in command_line(p)]

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def readiness(self) -> dict[str, Any]:
        reply: dict[str, Any] = self.client.get("/ready").json()
        return reply


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    cache = WeightsCache(default_weights_dir())
    for spec in load_catalog():
        fetch(spec, cache=cache)
    folder = tmp_path_factory.mktemp("server")
    config = write_config(folder, QUICKLY_IDLE)
    add_models(config, document_models(folder / "models"), folder / "models")
    with started(config) as running:
        yield running


@contextlib.contextmanager
def started(config: Path) -> Iterator[RunningServer]:
    """A server that is ready, and ends with the block."""
    running = start(config)
    try:
        wait_until_healthy(running)
        yield running
    finally:
        stop(running)


def start(config: Path) -> RunningServer:
    port, log = quiet_port(), config.with_name("server.log")
    command = [sys.executable, "-m", "launcher", "--port", str(port), "--config", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    return RunningServer(f"http://127.0.0.1:{port}", process, log)


def stop(running: RunningServer) -> None:
    """Let it end in order. One that does not is killed with all that it has started."""
    running.client.close()
    running.process.terminate()
    try:
        running.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        kill_everything(running)
        pytest.fail(f"the server did not stop:\n{running.log.read_text()[-4000:]}")


def kill_everything(running: RunningServer) -> None:
    """As when the machine loses its power: nobody has time to tidy up."""
    running.client.close()
    processes = [*running.descendants(), psutil.Process(running.process.pid)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, 30)
    running.process.wait(30)


def write_config(folder: Path, idle: dict[str, int]) -> Path:
    """The shipped file with its own data directory and idle times."""
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    args = document["applications"][0]["args"]
    args["data_dir"] = str(folder / "data")
    for task, seconds in idle.items():
        args[task]["idle_timeout_s"] = seconds
    path = folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def add_models(config: Path, entries: list[dict[str, Any]], root: Path) -> None:
    """More catalogue entries, whose paths lie below `root`."""
    document = yaml.safe_load(config.read_text())
    args = document["applications"][0]["args"]
    args |= {"models": entries, "model_roots": [str(root)]}
    config.write_text(yaml.safe_dump(document))


def document_models(root: Path) -> list[dict[str, Any]]:
    """A Donut that knows one receipt, and a LayoutLM that finds digits."""
    write_donut(root / "receipts", CORD, RECEIPT)
    write_layout(root / "digits", "layoutlm", "TokenClassification", taught=True)
    write_layout(root / "answers", "layoutlmv3", "QuestionAnswering")
    return [
        {"id": name, "task": "ocr", "engine": "documents"}
        | {"source": {"kind": "path", "path": name}}
        for name in ("receipts", "digits", "answers")
    ]


def wait_until_healthy(running: RunningServer) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            break
        try:
            if running.client.get("/health", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    pytest.fail(f"the server did not start:\n{running.log.read_text()[-4000:]}")
