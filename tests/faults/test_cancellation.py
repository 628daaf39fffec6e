"""Clients that leave, at any moment and on every route, leave nothing behind."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.documents import pdf, text_page
from tests.faults.test_poison import BATCHES, chat
from tests.integration.conftest import RunningServer

LEAVING = 1000
AT_ONCE = 32
QUIET_S = 240
OLD_S = 15
"""More than the age of a figure: each process exports its own every ten seconds."""
REQUESTS_IN_FLIGHT = "ray_inference_requests_in_flight"
EMPTY = ("ray_inference_queued_cost", "ray_inference_running_sequences")
"""What must come back to 0."""

DOCUMENT = base64.b64encode(pdf([text_page([f"Page {n}"]) for n in range(20)])).decode()
ROWS = [[float(i % 7), float(i % 5)] for i in range(400)]
LONG = "a long story " * 20
ROUTES: list[tuple[str, dict[str, Any]]] = [
    *((path, body("some text")) for path, _, body in BATCHES.values()),
    ("/v1/embeddings", {"model": "texts", "input": ["a longer text " * 30] * 200}),
    ("/v1/embeddings", {"model": "texts", "input": "fault:slow"}),
    ("/v1/chat/completions", chat(LONG)),
    ("/v1/chat/completions", chat(LONG, stream=True)),
    ("/v1/chat/completions", chat(LONG, n=4, stream=True)),
    ("/v1/completions", {"model": "chat", "prompt": [LONG] * 3, "max_tokens": 500}),
    (
        "/v1/ocr",
        {
            "model": "pages",
            "force_ocr": True,
            "document": {
                "type": "document_url",
                "document_url": f"data:application/pdf;base64,{DOCUMENT}",
            },
        },
    ),
    ("/v1/anomaly/fit", {"model": "left", "data": ROWS, "backend": "isolation_forest"}),
    ("/v1/anomaly/score", {"model": "left", "data": ROWS}),
]


async def leave_early(server: RunningServer, chance: random.Random) -> None:
    """Send one request and close the connection before, while or after it is answered."""
    path, body = chance.choice(ROUTES)
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    address = urlsplit(server.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(head.encode() + content)
    await writer.drain()
    await asyncio.sleep(chance.expovariate(1 / 0.08))
    writer.transport.abort()


async def all_leave(server: RunningServer, count: int) -> None:
    chance, places = random.Random(20), asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with places:
            await leave_early(server, chance)

    await asyncio.gather(*(one() for _ in range(count)))


def figures(server: RunningServer) -> Counter[str]:
    """The gauges of interest, summed over their labels."""
    sums: Counter[str] = Counter()
    for line in server.client.get("/metrics").text.splitlines():
        found = re.match(r"(\w+)(?:\{.*\})? (\S+)$", line)
        if found and found[1] in {*EMPTY, REQUESTS_IN_FLIGHT}:
            sums[found[1]] += float(found[2])  # type: ignore[assignment]  # figures are floats
    return sums


def threads_and_children(server: RunningServer) -> dict[str, tuple[int, int]]:
    """Of each deployment's replica."""
    counts = {}
    for task in (
        "Ingress",
        "Generation",
        "Embedding",
        "Rerank",
        "Classification",
        "Ocr",
        "Anomaly",
    ):
        for process in server.replicas(task):
            counts[f"{task} {process.pid}"] = (
                process.num_threads(),
                len([p for p in process.children() if p.status() != psutil.STATUS_ZOMBIE]),
            )
    return counts


def warm_up(server: RunningServer) -> None:
    for path, body in ROUTES:
        reply = server.client.post(path, json=body)
        assert reply.status_code == 200, (path, reply.text)


def test_a_thousand_disconnects_leave_nothing_behind(server: RunningServer) -> None:
    warm_up(server)
    asyncio.run(all_leave(server, LEAVING))  # pools have all their threads now
    before = wait_until_quiet(server)
    asyncio.run(all_leave(server, LEAVING))
    after = wait_until_quiet(server)
    assert before.keys() == after.keys()  # no replica has died of it
    for replica, (threads, children) in after.items():
        assert threads <= before[replica][0] + 4, replica
        assert children <= before[replica][1], replica
    warm_up(server)


def wait_until_quiet(server: RunningServer) -> dict[str, tuple[int, int]]:
    """Threads and children when nothing waits or runs any more, by figures that are not older."""
    deadline = time.monotonic() + QUIET_S
    quiet_since = time.monotonic()
    while time.monotonic() < deadline:
        now = figures(server)
        idle = all(now[name] == 0 for name in EMPTY)
        if not idle or now[REQUESTS_IN_FLIGHT] > 1:  # the one that asks for the figures
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > OLD_S:
            return threads_and_children(server)
        time.sleep(1)
    pytest.fail(f"something is left: {now}")
