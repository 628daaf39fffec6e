"""What the benchmarks share: a server to measure, a load that is not the bottleneck, medians.

Absolute figures say little on a shared machine: everything is measured beside a peer, in
interleaved rounds of one run, and reported as the ratio of medians.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml

ROOT = Path(__file__).parents[1]
START_S = 180


@dataclass
class Server:
    """A running server and all of its processes."""

    url: str
    process: subprocess.Popen[bytes]
    started_s: float

    def processes(self) -> list[psutil.Process]:
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """CPU time of all processes so far."""
        return sum(_or_zero(lambda p=p: sum(p.cpu_times()[:2])) for p in self.processes())

    def pss_bytes(self) -> int:
        """Proportional set size of all processes: shared pages are counted once."""
        return int(sum(_or_zero(lambda p=p: p.memory_full_info().pss) for p in self.processes()))


def _or_zero(measure: Callable[[], float]) -> float:
    try:
        return measure()
    except psutil.Error:  # ended meanwhile
        return 0.0


@contextmanager
def serving(args: dict[str, Any] | None = None) -> Iterator[Server]:
    """The shipped configuration with some of the application's `args` replaced."""
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    document["applications"][0]["args"] |= args or {}
    with tempfile.TemporaryDirectory() as folder:
        document["applications"][0]["args"]["data_dir"] = f"{folder}/data"
        config = Path(folder) / "serve_config.yaml"
        config.write_text(yaml.safe_dump(document))
        port = free_port()
        command = [sys.executable, "-m", "launcher", "--port", str(port), "--config", str(config)]
        begin = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}"
            asyncio.run(_first_answer(f"{url}/health", process))
            yield Server(url, process, time.monotonic() - begin)
        finally:
            process.terminate()
            process.wait(90)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def _first_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(START_S):
        while process.poll() is None:
            try:
                async with session.get(url) as reply:
                    if reply.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    raise RuntimeError("the server has ended before it answered")


@dataclass(frozen=True, slots=True)
class Load:
    """What one period of load did. Latencies are in seconds."""

    requests: int
    seconds: float
    latencies: tuple[float, ...]

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def quantile(self, q: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def load(url: str, bodies: Sequence[Any], *, clients: int, seconds: float) -> Load:
    """Closed loop: each client sends the next of `bodies` when the last was answered with 200."""
    return asyncio.run(_load(url, [json.dumps(body) for body in bodies], clients, seconds))


async def _load(url: str, bodies: Sequence[str], clients: int, seconds: float) -> Load:
    latencies: list[float] = []
    headers = {"content-type": "application/json"}
    end = time.perf_counter() + seconds

    async def client(session: aiohttp.ClientSession, offset: int) -> None:
        turn = offset
        while (begin := time.perf_counter()) < end:
            async with session.post(url, data=bodies[turn % len(bodies)], headers=headers) as reply:
                await reply.read()
                reply.raise_for_status()
            latencies.append(time.perf_counter() - begin)
            turn += clients

    connector = aiohttp.TCPConnector(limit=clients)
    begin = time.perf_counter()
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(client(session, offset) for offset in range(clients)))
    return Load(len(latencies), time.perf_counter() - begin, tuple(latencies))


def spread(values: Sequence[float]) -> str:
    """Median with the range, three significant digits."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


def ratio(ours: Sequence[float], peers: Sequence[float]) -> float:
    return statistics.median(ours) / statistics.median(peers)
