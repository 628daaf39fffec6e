"""A burst of requests asks Serve's controller once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.ingress import ingress
from deployments.ingress.ingress import ServeCluster
from deployments.ingress.server import running_replicas
from deployments.ingress.shared_call import SharedCall


class Question:
    def __init__(self) -> None:
        self.asked = 0
        self.answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> int:
        self.asked += 1
        return await asyncio.shield(self.answer)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_asks_while_it_is_under_way_gets_the_same_answer() -> None:
    question = Question()
    shared = SharedCall(question)
    asking = [asyncio.create_task(shared()) for _ in range(64)]
    await settle()
    question.answer.set_result(7)
    assert await asyncio.gather(*asking) == [7] * 64
    assert question.asked == 1
    assert await shared() == 7
    assert question.asked == 2


async def test_who_leaves_takes_no_answer_from_others() -> None:
    question = Question()
    shared = SharedCall(question)
    first, second = asyncio.create_task(shared()), asyncio.create_task(shared())
    await settle()
    first.cancel()
    await settle()
    question.answer.set_result(7)
    assert await second == 7
    assert question.asked == 1


async def test_an_error_is_everybodys_and_the_next_one_asks_again() -> None:
    question = Question()
    shared = SharedCall(question)
    asking = [asyncio.create_task(shared()) for _ in range(2)]
    await settle()
    question.answer.set_exception(ConnectionError())
    assert [type(e) for e in await asyncio.gather(*asking, return_exceptions=True)] == [
        ConnectionError,
        ConnectionError,
    ]
    with pytest.raises(ConnectionError):
        await shared()
    assert question.asked == 2


async def test_a_burst_counts_the_replicas_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    running = SimpleNamespace(
        status=SimpleNamespace(value="HEALTHY"), replica_states={"RUNNING": 2}
    )

    def status() -> Any:
        asked.append(None)
        application = SimpleNamespace(deployments={"Embedding": running})
        return SimpleNamespace(applications={"app": application})

    context = SimpleNamespace(app_name="app")
    monkeypatch.setattr(ingress.serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(ingress.serve, "status", status)
    cluster = ServeCluster()
    counts = await asyncio.gather(*(running_replicas(cluster, "embedding") for _ in range(64)))
    assert counts == [2] * 64
    assert len(asked) == 1
