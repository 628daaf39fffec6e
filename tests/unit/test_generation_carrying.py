"""The stream that carries the text of others does not keep its own model in use for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import pytest

from config.settings import AppConfig
from deployments.generation import Generation
from models.types.generation import Delivery, GenerationRequest, SamplingParams, TextPrompt
from tests.fakes import spec

SLOW = spec("slow", "generation").model_copy(update={"engine_options": {"step_seconds": 0.005}})


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Generation]:
    monkeypatch.setattr("deployments.replica.ray.get_gpu_ids", list)
    replica = Generation([spec("quick", "generation"), SLOW], AppConfig())
    yield replica
    replica.shutdown()


def request(max_tokens: int) -> GenerationRequest:
    sampling = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    return GenerationRequest(TextPrompt("one"), sampling)


async def drained(items: AsyncGenerator[list[Delivery]], texts: dict[str, str]) -> None:
    async with aclosing(items):
        async for deliveries in items:
            for delivery in deliveries:
                said = "".join(delta.delta.text for delta in delivery.deltas)
                texts[delivery.call_id] = texts.get(delivery.call_id, "") + said


def in_use(deployment: Generation) -> dict[str, int]:
    return {status.model_id: status.in_flight for status in deployment._models.status()}


async def test_a_carrier_lets_go_of_its_model_when_its_own_text_has_ended(
    deployment: Generation,
) -> None:
    texts: dict[str, str] = {}
    carrier = deployment.generate("ingress", "first", "quick", [request(2)])
    assert await anext(carrier) == []
    other = deployment.generate("ingress", "second", "slow", [request(100)])
    assert await anext(other) == []
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(drained(carrier, texts))
        tasks.create_task(drained(other, texts))
        while in_use(deployment)["quick"]:
            assert len(texts.get("second", "")) < 100
            await asyncio.sleep(0)
        assert in_use(deployment)["slow"] == 1
    assert {name: len(text) for name, text in texts.items()} == {"first": 2, "second": 100}
    assert in_use(deployment) == {"quick": 0, "slow": 0}
