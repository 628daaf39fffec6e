"""Text generation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

from config.catalog import ModelSpec, Task
from config.settings import AppConfig
from deployments.delta_streams import DeltaStreams
from deployments.engines import generator
from deployments.replica import ModelReplica
from models.base import Generator
from models.types.generation import ChatPrompt, Delivery, GenerationRequest, TokenizeRequest, Tokens

SEED_RANGE = 2**32


@dataclass(frozen=True, slots=True)
class _Running:
    """A call that an engine has, or is about to have."""

    engine: Generator
    request_ids: Sequence[str]
    adding: asyncio.Future[None]

    def cancel(self, adding: asyncio.Future[None]) -> None:
        adding.exception()  # already raised to the caller, or the caller has gone
        for request_id in self.request_ids:
            self.engine.cancel(request_id)


class Generation(ModelReplica[Generator]):
    """Generation engines with continuous batching; each model owns one engine thread."""

    task: ClassVar[Task] = "generation"

    def __init__(self, specs: Sequence[ModelSpec], config: AppConfig) -> None:
        super().__init__(specs, config)
        self._streams = DeltaStreams()
        self._running: dict[str, _Running] = {}

    def load(self, spec: ModelSpec) -> Generator:
        return generator(spec, self._config, self._resources, self._streams.listen)

    async def generate(
        self, session_id: str, call_id: str, model_id: str, requests: list[GenerationRequest]
    ) -> AsyncGenerator[list[Delivery]]:
        """Generate for the requests; the first item, empty, says that all were accepted.

        Choices are numbered through: the first request's n, then the second's. Their deltas come
        in this stream or in another one of the same session, see delta_streams.py. Raises what
        `Generator.add` raises before the first item. `cancel` ends the call early.
        """
        choices = [choice for request in requests for choice in _choices(request)]
        ids = [f"{call_id}-{index}" for index in range(len(choices))]
        session = self._streams.open(session_id, call_id, ids)
        try:
            async with AsyncExitStack() as held:
                engine = await held.enter_async_context(self._models.use(model_id))
                if call_id not in session:  # cancelled while the model was loading
                    return
                await held.enter_async_context(self._added(call_id, engine, ids, choices))
                yield []
                if session.carried or call_id not in session:
                    await session.ended(call_id)
                    return
                async with aclosing(session.carry()) as items:
                    async for deliveries in items:
                        yield deliveries
                        if call_id not in session:  # it goes on for others, of any model
                            await held.aclose()
        finally:
            self._streams.close(session_id, call_id, ids)

    @asynccontextmanager
    async def _added(
        self,
        call_id: str,
        engine: Generator,
        ids: Sequence[str],
        choices: Sequence[GenerationRequest],
    ) -> AsyncGenerator[None]:
        """The engine has the requests while the block runs.

        A thread cannot be interrupted: what it adds is cancelled once it has been added.
        """
        adding = asyncio.ensure_future(asyncio.to_thread(_add_choices, engine, ids, choices))
        self._running[call_id] = _Running(engine, ids, adding)
        try:
            await asyncio.shield(adding)
            yield
        finally:
            self._stop(call_id)
            await asyncio.wait([adding])

    async def cancel(self, call_id: str) -> None:
        """End a call and free its sequences within one step; unknown calls are ignored."""
        self._stop(call_id)
        self._streams.cancel(call_id)

    async def tokenize(self, model_id: str, request: TokenizeRequest) -> Tokens:
        return await self._models.run(model_id, lambda engine: engine.tokenize(request))

    async def detokenize(self, model_id: str, ids: Sequence[int]) -> str:
        return await self._models.run(model_id, lambda engine: engine.detokenize(ids))

    async def render(self, model_id: str, prompt: ChatPrompt) -> str:
        """The text that a chat becomes."""
        return await self._models.run(model_id, lambda engine: engine.render(prompt))

    def _stop(self, call_id: str) -> None:
        running = self._running.pop(call_id, None)
        if running is not None:
            running.adding.add_done_callback(running.cancel)


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
