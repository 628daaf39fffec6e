"""A Ray cluster of several nodes on this machine, started with the commands an operator types.

Every node is a session of processes of its own, so that a node can be lost as a machine is lost:
all at once. Ports, folders and the token are the cluster's own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from launcher.edge import PORTS, private_variables
from launcher.ports import free_ports
from tests.processes import command_line, of_session

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
OBJECT_STORE_BYTES = 80_000_000
REPLICA = "ray::ServeReplica:inference:"
PATIENCE_S = 240
STARTS = 3
"""Ray gives a node thirty seconds to start, however busy the machine is."""


def wait_until(met: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < end, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.1)


class Node:
    """`ray start --block` and everything it has started."""

    def __init__(self, arguments: list[str], variables: dict[str, str], log: Path) -> None:
        self._arguments, self._variables, self._log = arguments, variables, log
        self._starts = 0
        self._start()

    def _start(self) -> None:
        self._starts += 1
        with self._log.open("w") as output:
            self.process = subprocess.Popen(
                [BIN / "ray", "start", "--block", f"--object-store-memory={OBJECT_STORE_BYTES}",
                 *self._arguments],
                env=os.environ | self._variables, cwd=ROOT, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def started(self) -> bool:
        """Whether it has joined; one that has given up is started again."""
        output = self._log.read_text()
        if self.process.poll() is not None:
            assert self._starts < STARTS, output
            self.end()
            self._start()
            return False
        return "Ray runtime started." in output

    def processes(self) -> list[psutil.Process]:
        return of_session(self.process.pid)

    def replicas(self) -> dict[int, str]:
        """Process id -> name of the deployment, of the replicas on this node."""
        titles = ((process.pid, command_line(process)) for process in self.processes())
        return {
            pid: title.removeprefix(REPLICA).split()[0].partition(".")[0]
            for pid, title in titles
            if title.startswith(REPLICA)
        }

    def end(self) -> None:
        """As when a machine is lost: all are stopped first, so that none sees another end."""
        while remaining := self.processes():
            for what in (signal.SIGSTOP, signal.SIGKILL):
                for process in remaining:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(what)
        self.process.wait()


class RayCluster:
    """A head without GPUs, and the nodes that are added to it."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self.token = secrets.token_hex(32)
        self._folder, self._logs = folder, logs
        names = ("gcs", "dashboard", "agent", "client", "http")
        ports = free_ports(len(names) + len(PORTS))
        self._ports = dict(zip(names, ports, strict=False))
        self._variables = private_variables(folder, ports[len(names) :]) | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_period_ms": "1000",
            "PYTHONPATH": str(ROOT),
        }
        self.nodes: list[Node] = []

    @property
    def http_port(self) -> int:
        """Where the application is to listen."""
        return self._ports["http"]

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self._ports['dashboard']}"

    @property
    def agent(self) -> str:
        """The head's dashboard agent, which listens on the machine's address too."""
        return f"http://127.0.0.1:{self._ports['agent']}"

    def start_head(self, *, cpus: int) -> None:
        head = self._add(
            "--head", f"--num-cpus={cpus}", "--num-gpus=0", f"--port={self._ports['gcs']}",
            f"--temp-dir={self._folder / 'ray'}", f"--dashboard-port={self._ports['dashboard']}",
            f"--dashboard-agent-listen-port={self._ports['agent']}",
            f"--ray-client-server-port={self._ports['client']}",
        )  # fmt: skip
        wait_until(head.started, "the head runs")

    def add_node(self, *, cpus: int, gpus: int) -> Node:
        """Join a node and return before it has joined; nothing checks that the GPUs exist."""
        return self._add(
            f"--address=127.0.0.1:{self._ports['gcs']}", f"--num-cpus={cpus}",
            f"--num-gpus={gpus}", "--dashboard-agent-listen-port=0",
        )  # fmt: skip

    def _add(self, *arguments: str) -> Node:
        log = self._logs / f"node-{len(self.nodes)}.log"
        self.nodes.append(Node(list(arguments), self._variables, log))
        return self.nodes[-1]

    def serve_deploy(self, config: Path) -> None:
        run = subprocess.run(
            [BIN / "serve", "deploy", "--address", self.dashboard, config],
            env=os.environ | self._variables, cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr

    def application(self) -> dict[str, Any]:
        """What Serve says of the application; empty when it does not know it yet."""
        reply = httpx.get(
            f"{self.dashboard}/api/serve/applications/",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=PATIENCE_S,
        )
        application: dict[str, Any] = reply.json()["applications"].get("inference", {})
        assert application.get("status") != "DEPLOY_FAILED", application["message"]
        return application

    def replicas(self) -> dict[int, str]:
        """Process id -> name of the deployment, on all nodes."""
        return {pid: name for node in self.nodes for pid, name in node.replicas().items()}

    def end(self) -> None:
        for node in reversed(self.nodes):
            node.end()
