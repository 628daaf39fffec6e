"""A model cache whose models weigh nothing and whose clock stands still."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from config.catalog import ModelSpec
from deployments.model_cache.cache import ModelCache
from deployments.model_cache.loader import ModelLoader
from deployments.model_cache.loads import LoadLimits
from tests.fakes import CLASSIFIERS, spec

WAIT_S = 60.0
"""Never needed, but by what is broken."""


class FakeModel:
    alive = True

    def __init__(self, memory_bytes: int = 42) -> None:
        self.memory_bytes = memory_bytes
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Loader:
    """Loads at once while `gate` is set; models of `slow` wait for it."""

    loads: list[str] = field(default_factory=list)
    error: Exception | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    slow: tuple[str, ...] = ()

    def __call__(self, spec: ModelSpec) -> FakeModel:
        self.loads.append(spec.id)
        if spec.id in self.slow:
            assert self.gate.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        return FakeModel()


def cache(
    load: Callable[[ModelSpec], FakeModel],
    clock: Clock | None = None,
    *,
    deadline_s: float = WAIT_S,
    hooks: dict[str, Any] | None = None,
    **options: Any,
) -> ModelCache[FakeModel]:
    specs = [spec(name, "embedding") for name in "abc"] + [CLASSIFIERS]
    limits = LoadLimits(deadline_s, stuck_s=1000)
    return ModelCache(
        specs, ModelLoader(load, **hooks or {}), limits, clock=clock or Clock(), **options
    )


async def use(models: ModelCache[FakeModel], model_id: str) -> FakeModel:
    async with models.use(model_id) as model:
        return model


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.001)


def states(models: ModelCache[FakeModel]) -> dict[str, str]:
    return {status.model_id: status.state for status in models.status()}
