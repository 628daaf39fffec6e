"""A load over HTTP that is not the bottleneck: closed loops of one process.

How much of a core the generator itself took is part of what it reports: near 1 it would be what is
measured.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class Load:
    """What one period of load did. Latencies are in seconds."""

    requests: int
    seconds: float
    latencies: tuple[float, ...]
    client_share: float = 0.0
    """Of a core, taken by the load generator itself."""

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def quantile(self, q: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def load(
    url: str, bodies: Sequence[Any], *, clients: int, seconds: float, edge_s: float = 0
) -> Load:
    """Closed loop: each client sends the next of `bodies` when the last was answered with 200.

    `edge_s`: the load goes on for so long before and after the `seconds` that count.
    """
    texts = [json.dumps(body) for body in bodies]
    return asyncio.run(_load(url, texts, clients, seconds, edge_s))


async def _load(
    url: str, bodies: Sequence[str], clients: int, limit_s: float, edge_s: float
) -> Load:
    answered: list[tuple[float, float]] = []  # when, and after how long
    headers = {"content-type": "application/json"}
    end = time.perf_counter() + limit_s + 2 * edge_s

    async def client(session: aiohttp.ClientSession, offset: int) -> None:
        turn = offset
        while (begin := time.perf_counter()) < end:
            async with session.post(url, data=bodies[turn % len(bodies)], headers=headers) as reply:
                await reply.read()
                reply.raise_for_status()
            now = time.perf_counter()
            answered.append((now, now - begin))
            turn += clients

    connector = aiohttp.TCPConnector(limit=clients)
    begin, cpu = time.perf_counter(), time.process_time()
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(client(session, offset) for offset in range(clients)))
    seconds = time.perf_counter() - begin
    share = (time.process_time() - cpu) / seconds
    if edge_s:
        first, last, seconds = end - limit_s - edge_s, end - edge_s, limit_s
        answered = [(at, latency) for at, latency in answered if first < at <= last]
    return Load(len(answered), seconds, tuple(latency for _, latency in answered), share)
