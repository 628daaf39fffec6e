"""Compute that hangs is noticed in seconds; its process ends, and the next request works."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import httpx

from tests.faults.conftest import error_of
from tests.faults.test_poison import BATCHES, chat
from tests.integration.conftest import RunningServer

Case = tuple[str, dict[str, Any], dict[str, Any]]
CASES: dict[str, Case] = {
    "Generation": ("/v1/chat/completions", chat("fault:hang"), chat("next")),
    "Embedding": (BATCHES["Embedding"][0], *map(BATCHES["Embedding"][2], ("fault:hang", "next"))),
    # holds the interpreter's lock, so that nothing else of the process runs
    "Rerank": (BATCHES["Rerank"][0], *map(BATCHES["Rerank"][2], ("fault:spin", "next"))),
}


async def hang_and_recover(
    http: httpx.AsyncClient, case: Case
) -> tuple[httpx.Response, httpx.Response]:
    """The answer to a request that hangs, and that to one which came a moment later."""
    path, hanging, body = case
    assert (await http.post(path, json=body)).status_code == 200
    poison = asyncio.create_task(http.post(path, json=hanging))
    await asyncio.sleep(0.5)
    after = await http.post(path, json=body)
    return await poison, after


async def stop_and_recover(http: httpx.AsyncClient, server: RunningServer) -> httpx.Response:
    """The answer to a request that a stopped process was asked."""
    path, _, body = BATCHES["Ocr"]
    assert (await http.post(path, json=body("before"))).status_code == 200
    [replica] = server.replicas("Ocr")
    replica.send_signal(signal.SIGSTOP)
    reply = await http.post(path, json=body("after"))
    await asyncio.to_thread(replica.wait, 180)
    return reply


def test_what_hangs_is_answered_and_what_waits_behind_it_is_served(server: RunningServer) -> None:
    async def all_cases() -> tuple[list[tuple[httpx.Response, httpx.Response]], httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=180) as http:
            stopped = asyncio.create_task(stop_and_recover(http, server))
            hung = await asyncio.gather(*(hang_and_recover(http, c) for c in CASES.values()))
            return hung, await stopped

    hung, stopped = asyncio.run(all_cases())
    for poison, after in hung:
        assert (poison.status_code, error_of(poison)) == (500, "engine_died")
        assert poison.headers["x-should-retry"] == "false"
        assert after.status_code == 200, after.text
    assert stopped.status_code == 200, stopped.text
