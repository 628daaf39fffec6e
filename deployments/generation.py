"""Text generation."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import ClassVar

from config.catalog import ModelSpec, Task
from config.settings import AppConfig
from deployments.delta_streams import DeltaStreams
from deployments.engines import generator
from deployments.replica import ModelReplica
from models.base import Generator
from models.errors import EngineDeadError
from models.types import ChoiceDelta, GenerationRequest

SEED_RANGE = 2**32


class Generation(ModelReplica[Generator]):
    """Generation engines with continuous batching; each model owns one engine thread."""

    task: ClassVar[Task] = "generation"

    def __init__(self, specs: Sequence[ModelSpec], config: AppConfig) -> None:
        super().__init__(specs, config)
        self._streams = DeltaStreams()

    def load(self, spec: ModelSpec) -> Generator:
        return generator(spec, self._config, self._resources, self._streams.listen)

    async def generate(
        self, model_id: str, requests: list[GenerationRequest]
    ) -> AsyncIterator[list[ChoiceDelta]]:
        """Deltas of all choices as the engine makes them, those of one step together.

        Choices are numbered through: the first request's n, then the second's.
        Closing the iterator frees the sequences within one step. Raises what `Generator.add`
        raises before the first item.
        """
        engine = await self._models.get(model_id)
        choices = [choice for request in requests for choice in _choices(request)]
        ids = [f"{uuid.uuid4().hex}-{index}" for index in range(len(choices))]
        stream = self._streams.open(ids)
        adding = asyncio.ensure_future(asyncio.to_thread(_add_choices, engine, ids, choices))
        try:
            await asyncio.shield(adding)
            while not stream.finished:
                yield await stream.take()
        finally:
            self._streams.close(ids)
            # A thread cannot be interrupted: cancel what it has added once it has added it.
            adding.add_done_callback(lambda done: _cancel_choices(engine, ids, done))

    async def check_health(self) -> None:
        """Serve replaces the replica when an engine thread has ended."""
        for model_id, engine in self._models.loaded().items():
            if not engine.alive:
                raise EngineDeadError(f"The engine of '{model_id}' has stopped.")


def _choices(request: GenerationRequest) -> list[GenerationRequest]:
    """A request per choice; choice i uses seed + i."""
    sampling, seed = request.sampling, request.sampling.seed
    if seed is None:
        return [replace(request, n=1)] * request.n
    return [
        replace(request, n=1, sampling=replace(sampling, seed=(seed + index) % SEED_RANGE))
        for index in range(request.n)
    ]


def _add_choices(
    engine: Generator, ids: Sequence[str], choices: Sequence[GenerationRequest]
) -> None:
    for request_id, choice in zip(ids, choices, strict=True):
        engine.add(request_id, choice)


def _cancel_choices(engine: Generator, ids: Sequence[str], adding: asyncio.Future[None]) -> None:
    adding.exception()  # already raised to the caller, or the caller has gone
    for request_id in ids:
        engine.cancel(request_id)
