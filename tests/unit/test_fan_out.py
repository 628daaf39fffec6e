"""One request as many: it finds room for itself in a queue of any size, and leaves some."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from config.settings import AppConfig, CoalescingSettings
from deployments.ingress.coalescer import Calls, Coalescer
from deployments.ingress.fan_out import AT_ONCE, fan_out
from models.errors import DeadlineExceededError, ModelError, OverloadedError
from models.types.classification import ClassificationRequest, ClassificationResult
from models.types.common import Usage
from models.types.texts import RerankRequest, RerankResult
from tests.fakes import FakeReplicas, make_client, make_server

NARROW = CoalescingSettings(max_in_flight=1, max_large_in_flight=1, max_waiting=1)
LARGE = NARROW.model_copy(update={"enabled": False})
PAIRS = 3 * AT_ONCE


class Replica:
    """Answers with the request; holds calls back while `gate` is closed."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls: list[list[int]] = []

    async def call(self, requests: list[int]) -> list[int | ModelError]:
        self.calls.append(requests)
        await self.gate.wait()
        return list(requests)


def coalescer(replica: Replica, settings: CoalescingSettings) -> Coalescer[int, int]:
    return Coalescer(Calls(replica.call, replica.call, replica.call), lambda _: 1, settings)


@pytest.mark.parametrize("settings", [NARROW, LARGE], ids=["small", "large"])
async def test_a_narrow_queue_takes_them_all_one_after_another(
    settings: CoalescingSettings,
) -> None:
    queue = coalescer(Replica(), settings)
    assert await fan_out(queue.submit, range(PAIRS)) == list(range(PAIRS))


async def test_what_others_have_waiting_refuses_it() -> None:
    replica = Replica()
    replica.gate.clear()
    queue = coalescer(replica, NARROW)
    others = [asyncio.create_task(queue.submit(i, "other")) for i in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await fan_out(queue.submit, range(PAIRS))
    replica.gate.set()
    assert await asyncio.gather(*others) == [0, 1]


async def test_a_few_are_submitted_at_once() -> None:
    inside, most = 0, 0

    async def submit(request: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        return request

    assert await fan_out(submit, range(PAIRS)) == list(range(PAIRS))
    assert most == AT_ONCE


async def test_when_one_fails_the_others_are_dropped() -> None:
    running: set[int] = set()

    async def submit(request: int) -> int:
        if request == 3:
            raise ModelError("not this one")
        running.add(request)
        try:
            await asyncio.Event().wait()
        finally:
            running.discard(request)
        return request

    with pytest.raises(ModelError, match="not this one"):
        await fan_out(submit, range(PAIRS))
    await asyncio.sleep(0)
    assert not running


async def rank(model_id: str, requests: list[RerankRequest]) -> list[RerankResult]:
    return [RerankResult((0.0,), (float(len(r.query)),), Usage(1)) for r in requests]


async def classify(
    model_id: str, requests: list[ClassificationRequest]
) -> list[ClassificationResult]:
    row = np.array([[0.75]], np.float32)
    return [ClassificationResult(r.labels or (), row, row, Usage(1)) for r in requests]


@pytest.mark.parametrize("settings", [NARROW, LARGE], ids=["small", "large"])
def test_an_idle_server_refuses_no_list_of_pairs_or_questions(settings: Any) -> None:
    replicas = {
        "rerank": FakeReplicas({"rank": rank}),
        "classification": FakeReplicas({"classify": classify}),
    }
    http = make_client(replicas, config=AppConfig(coalescing=settings))
    texts = ["q" * (i + 1) for i in range(PAIRS)]
    reply = http.post("/v1/score", json={"queries": texts, "documents": ["d"] * PAIRS})
    assert reply.status_code == 200, reply.text
    assert [entry["score"] for entry in reply.json()["data"]] == [i + 1 for i in range(PAIRS)]
    question = {"type": "predicate", "instructions": "It is so."}
    body = {"model": "classifier-model", "input": "a", "questions": [question] * PAIRS}
    reply = http.post("/v1/decisions", json=body)
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["answers"]) == PAIRS


async def test_all_of_them_have_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def without_end(model_id: str, request: RerankRequest) -> RerankResult:
        await asyncio.Event().wait()
        raise AssertionError

    client = make_server({"rerank": FakeReplicas()}).clients.rerank
    monkeypatch.setattr(client, "submit", without_end)
    monkeypatch.setattr(client, "_deadline_s", 0.0)
    with pytest.raises(DeadlineExceededError):
        await client.submit_all("rerank-model", [RerankRequest("q", ("d",))])
