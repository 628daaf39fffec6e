"""Peers that are servers: started, waited for, ended."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.server import Server, first_answer


@contextmanager
def peer_server(
    command: Sequence[str | Path], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """The process of a server on this port, once it answers /health."""
    begin, url = time.monotonic(), f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        command,
        env=os.environ | (environment or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        asyncio.run(first_answer(f"{url}/health", process))
        yield Server(url, process, time.monotonic() - begin)
    finally:
        process.terminate()
        process.wait(60)
