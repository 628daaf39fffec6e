"""A server to measure: the shipped configuration on a port of its own, and its processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml

from launcher.ports import free_ports

ROOT = Path(__file__).parents[2]
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
def serving(args: dict[str, Any] | None = None, *, stock: bool = False) -> Iterator[Server]:
    """The shipped configuration with some of the application's `args` replaced.

    `stock`: without the variables that make Serve fast, as it comes.
    """
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    document["applications"][0]["args"] |= args or {}
    if stock:
        del document["controller_options"], document["applications"][0]["runtime_env"]
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
            asyncio.run(first_answer(f"{url}/health", process))
            yield Server(url, process, time.monotonic() - begin)
        finally:
            process.terminate()
            process.wait(180)  # the launcher gives itself less


def free_port() -> int:
    [port] = free_ports(1)
    return port


async def first_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    """Returns when the address answers 200. Raises RuntimeError when the process ends before."""
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
