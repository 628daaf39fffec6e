"""`python -m launcher` from its start to the end of its last process."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from launcher.edge import without_haproxy
from tests.ports import quiet_port
from tests.processes import command_line, of_session

ROOT = Path(__file__).parents[2]
START_S, STOP_S = 300, 120
BUILTIN = {"engine": "toy", "source": {"kind": "builtin"}}
ENCODER = {"id": "toy-encoder", "task": "embedding", **BUILTIN}
SLOW = {"id": "toy-chat", "task": "generation", "engine_options": {"step_seconds": 0.1}, **BUILTIN}
CHAT = {
    "model": "toy-chat",
    "messages": [{"role": "user", "content": "one"}],
    "stream": True,
    "max_tokens": 100,
    "ignore_eos": True,
}


class Server:
    """One launcher in a session of its own, started as a shell starts background jobs."""

    def __init__(self, config: Path, output: Path) -> None:
        self.port = quiet_port()
        self._output = output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launcher", "--config", config, "--port", str(self.port)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=ignore_interrupts,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + START_S
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.1)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        method = "GET" if body is None else "POST"
        reply = httpx.request(method, f"{self.url}{path}", json=body, timeout=60)
        answer: dict[str, Any] = reply.raise_for_status().json()
        return answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for_status(self, status: int) -> dict[str, Any]:
        """The body of the first answer to GET /ready that has it."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                reply = httpx.get(f"{self.url}/ready", timeout=60)
                if reply.status_code == status:
                    body: dict[str, Any] = reply.json()
                    return body
            time.sleep(0.05)
        raise AssertionError(self.output)

    def processes(self) -> list[psutil.Process]:
        """Those of its session, zombies that nobody waits for left out."""
        return of_session(self.process.pid)

    def named(self) -> list[tuple[str, psutil.Process]]:
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended since it was listed
                found.append((process.name(), process))
        return found

    def names(self) -> list[str]:
        return [name for name, _ in self.named()]

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """The shipped configuration with a weightless catalogue."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(yaml.safe_dump({"models": [ENCODER, SLOW]}))
    content: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    content["applications"][0]["args"] |= {"catalog": str(catalog), "data_dir": str(tmp_path)}
    return content


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Server]]:
    servers: list[Server] = []

    def started(content: dict[str, Any]) -> Server:
        config = tmp_path / "serve.yaml"
        config.write_text(yaml.safe_dump(content))
        servers.append(Server(config, tmp_path / "output"))
        return servers[-1]

    yield started
    for server in servers:
        for process in server.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        server.process.wait()


Start = Callable[[dict[str, Any]], Server]


def test_serves_then_ends_with_nothing_left(start: Start, document: dict[str, Any]) -> None:
    server = start(document)
    server.wait_for("Ctrl-C ends it.")
    assert server.ask("/health") == {"status": "ok"}
    answer = server.ask("/v1/embeddings", {"model": "toy-encoder", "input": "one"})
    assert len(answer["data"]) == 1
    shown = server.output
    assert f"http://127.0.0.1:{server.port}" in shown
    assert "embedding       toy-encoder" in shown
    assert f"curl http://127.0.0.1:{server.port}/v1/embeddings" in shown
    names = server.names()
    assert {"raylet", "gcs_server"} <= set(names)
    assert (names.count("haproxy") >= 2) is (sys.platform == "linux")
    lines = " ".join(map(command_line, server.processes()))
    assert not any(unused in lines for unused in ("monitor.py", "dashboard.py"))
    assert server.stop(signal.SIGINT) == 0, server.output
    assert server.processes() == []
    assert "Traceback" not in server.output


@pytest.mark.skipif(sys.platform != "linux", reason="drains where HAProxy runs")
def test_what_is_under_way_ends_before_the_server_does(
    start: Start, document: dict[str, Any]
) -> None:
    server = start(document)
    assert server.wait_for_status(503)["error"]["code"] == "server_unavailable"
    server.wait_for("Ctrl-C ends it.")
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=CHAT, timeout=60) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        server.process.send_signal(signal.SIGTERM)
        refused = server.wait_for_status(503)
        assert refused["error"]["code"] == "server_unavailable"
        assert server.process.poll() is None
        events = [line for line in lines if line]
    assert events[-1] == "data: [DONE]"
    assert server.process.wait(STOP_S) == 0, server.output
    assert server.processes() == []


def test_serves_without_serves_haproxy_but_not_without_ray(
    start: Start, document: dict[str, Any]
) -> None:
    """What Ray cannot replace, a supervisor has to start again with the rest: so it all ends."""
    server = start(without_haproxy(document))
    server.wait_for("Ctrl-C ends it.")
    answer = server.ask("/v1/embeddings", {"model": "toy-encoder", "input": ["one", "two"]})
    assert len(answer["data"]) == 2
    assert server.names().count("haproxy") == (sys.platform == "linux"), "the front alone"
    [store] = [process for name, process in server.named() if name == "gcs_server"]
    store.suspend()
    assert server.process.wait(STOP_S) == 1, server.output
    assert "Ray's process 'gcs_server' has ended unexpectedly." in server.output
    assert server.processes() == []


def test_stopped_while_it_starts(start: Start, document: dict[str, Any]) -> None:
    server = start(document)
    server.wait_for("Starting the server")
    assert server.stop(signal.SIGTERM) == 0, server.output
    assert server.processes() == []


def test_an_application_that_cannot_be_deployed(start: Start, document: dict[str, Any]) -> None:
    document["applications"][0] |= {"import_path": "no_such_module:app", "args": {}}
    server = start(document)
    assert server.process.wait(START_S) == 1, server.output
    reason = "The application 'inference' cannot be deployed: "
    assert f"{reason}ModuleNotFoundError: No module named 'no_such_module'" in server.output
    assert server.processes() == []
