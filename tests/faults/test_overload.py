"""Full queues refuse at once, and tell when to come again; clients that do are served."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import islice

import httpx
from openai import AsyncOpenAI

from tests.faults.conftest import MAX_WAITING, error_of
from tests.faults.test_poison import BATCHES
from tests.integration.conftest import RunningServer

MANY = MAX_WAITING + 30
FLOODS = 5
CHATS = 8
CHATS_TAKEN = 3
"""Of the model `narrow`: one runs, two wait."""
TEXT = "a story of rivers and of towns"


def assert_refused(reply: httpx.Response) -> None:
    assert (reply.status_code, error_of(reply)) == (429, "rate_limit_exceeded")
    assert 1 <= int(reply.headers["retry-after"]) <= 60


def test_a_full_queue_refuses_what_comes_and_serves_what_waits(server: RunningServer) -> None:
    path, _, body = BATCHES["Embedding"]
    assert server.client.post(path, json=body("first")).status_code == 200

    async def flood(http: httpx.AsyncClient) -> list[httpx.Response]:
        """The answers in the order in which they came."""
        await asyncio.gather(*(http.get("/health") for _ in range(MANY)))  # connections are there
        # The thread of the model is busy for a second; one call waits behind it.
        slow = [asyncio.create_task(http.post(path, json=body(f"fault:slow {n}"))) for n in (1, 2)]
        await asyncio.sleep(0.3)
        asked = [asyncio.create_task(http.post(path, json=body("a text"))) for _ in range(MANY)]
        replies = [await reply for reply in asyncio.as_completed(asked)]
        assert {(await one).status_code for one in slow} == {200}
        return replies

    async def floods() -> list[httpx.Response]:
        """Of the first one that was faster than the model; a busy machine may be slow to ask."""
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as http:
            for _ in range(FLOODS):
                replies = await flood(http)
                if any(reply.status_code == 429 for reply in replies):
                    break
            return replies

    replies = asyncio.run(floods())
    statuses = [reply.status_code for reply in replies]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= MAX_WAITING - 1
    for reply in replies:
        if reply.status_code == 429:
            assert_refused(reply)
    assert 200 in statuses[statuses.index(429) :], "refused at once, not after those that waited"
    assert server.client.post(path, json=body("afterwards")).status_code == 200


def test_openais_client_comes_again_and_is_served(server: RunningServer) -> None:
    path = "/v1/chat/completions"
    body = {"model": "narrow", "messages": [{"role": "user", "content": TEXT}], "temperature": 0}

    async def at_once() -> Counter[int]:
        """While one runs that would take a minute: when all places are taken, it is left."""
        endless = body | {"stream": True, "max_tokens": 4000, "ignore_eos": True}
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
            async with http.stream("POST", path, json=endless) as running:
                lines = running.aiter_lines()  # as long as it is held, so is the connection
                await anext(lines)
                others = [asyncio.create_task(http.post(path, json=body)) for _ in range(CHATS - 1)]
                for reply in islice(asyncio.as_completed(others), CHATS - CHATS_TAKEN):
                    assert_refused(await reply)
            return Counter(reply.status_code for reply in await asyncio.gather(*others))

    assert asyncio.run(at_once()) == {429: CHATS - CHATS_TAKEN, 200: CHATS_TAKEN - 1}

    async def again() -> list[str | None]:
        async with AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=10, timeout=120
        ) as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(**body) for _ in range(CHATS))  # type: ignore[call-overload]
            )
            return [answer.choices[0].message.content for answer in answers]

    assert asyncio.run(again()) == [TEXT] * CHATS
