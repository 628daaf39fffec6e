"""Full queues refuse at once, and tell when to come again; clients that do are served."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx
from openai import AsyncOpenAI

from tests.faults.conftest import MAX_WAITING, error_of
from tests.faults.test_poison import BATCHES
from tests.integration.conftest import RunningServer

MANY = MAX_WAITING + 30
CHATS = 8
TEXT = "a story of rivers and of towns"


def assert_refused(reply: httpx.Response) -> None:
    assert (reply.status_code, error_of(reply)) == (429, "rate_limit_exceeded")
    assert 1 <= int(reply.headers["retry-after"]) <= 60


def test_a_full_queue_refuses_what_comes_and_serves_what_waits(server: RunningServer) -> None:
    path, _, body = BATCHES["Embedding"]
    assert server.client.post(path, json=body("first")).status_code == 200

    async def flood() -> tuple[list[httpx.Response], list[float]]:
        seconds = []
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as http:
            # The thread of the model is busy for a second; one call waits behind it.
            slow = [
                asyncio.create_task(http.post(path, json=body(f"fault:slow {n}"))) for n in (1, 2)
            ]
            await asyncio.sleep(0.3)

            async def timed() -> httpx.Response:
                start = time.monotonic()
                reply = await http.post(path, json=body("a text"))
                if reply.status_code == 429:
                    seconds.append(time.monotonic() - start)
                return reply

            replies = await asyncio.gather(*(timed() for _ in range(MANY)))
            assert {(await one).status_code for one in slow} == {200}
            return replies, seconds

    replies, seconds = asyncio.run(flood())
    counts = Counter(reply.status_code for reply in replies)
    assert set(counts) == {200, 429}
    assert counts[200] >= MAX_WAITING - 1
    for reply in replies:
        if reply.status_code == 429:
            assert_refused(reply)
    assert min(seconds) < 1  # not after the slow ones; how fast is for the benchmark
    assert server.client.post(path, json=body("afterwards")).status_code == 200


def test_openais_client_comes_again_and_is_served(server: RunningServer) -> None:
    body = {"model": "narrow", "messages": [{"role": "user", "content": TEXT}], "temperature": 0}

    async def at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
            return await asyncio.gather(
                *(http.post("/v1/chat/completions", json=body) for _ in range(CHATS))
            )

    replies = asyncio.run(at_once())
    counts = Counter(reply.status_code for reply in replies)
    assert set(counts) == {200, 429}
    assert counts[200] >= 3  # one runs, two wait
    for reply in replies:
        if reply.status_code == 429:
            assert_refused(reply)

    async def again() -> list[str | None]:
        async with AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=10
        ) as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(**body) for _ in range(CHATS))  # type: ignore[call-overload]
            )
            return [answer.choices[0].message.content for answer in answers]

    assert asyncio.run(again()) == [TEXT] * CHATS
