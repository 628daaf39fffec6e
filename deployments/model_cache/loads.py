"""Loads under way: one per model for all who wait, failures remembered with back-off."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from deployments.model_cache.events import ModelEvents
from deployments.model_cache.loader import ModelLoader
from deployments.model_cache.room import ModelRoom
from deployments.model_cache.slot import Slot
from models.base import Model
from models.errors import LoadTimeoutError, MemoryRefusedError, ModelLoadError

M = TypeVar("M", bound=Model)
T = TypeVar("T")
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
MAX_DOUBLINGS = 10
"""More than lead to the longest back-off; without a bound the power outgrows a float."""

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """`deadline_s` is for those who wait; without progress for `stuck_s` a load or a
    download is given up."""

    deadline_s: float
    stuck_s: float = 1800.0


class ModelLoads(Generic[M]):
    """Loads go on when nobody waits any more."""

    def __init__(
        self,
        loader: ModelLoader[M],
        room: ModelRoom,
        limits: LoadLimits,
        clock: Callable[[], float],
        events: ModelEvents,
    ) -> None:
        self._loader = loader
        self._room = room
        self._limits = limits
        self._clock = clock
        self._events = events

    async def loaded(self, slot: Slot[M]) -> M:
        """Raises LoadTimeoutError while the load goes on, ModelLoadError when it failed (for the
        back-off time without trying again)."""
        wait = slot.retry_at - self._clock()
        if slot.error is not None and (wait > 0 or slot.loading is not None):
            refused = isinstance(slot.error, MemoryRefusedError)
            kind = MemoryRefusedError if refused else ModelLoadError
            raise kind(slot.error.message, max(wait, FIRST_BACKOFF_S))
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                return await asyncio.shield(self.begin(slot))
        except TimeoutError:
            message = f"The model '{slot.spec.id}' is still loading."
            raise LoadTimeoutError(message, retry_after=5.0) from None

    def begin(self, slot: Slot[M]) -> asyncio.Task[M]:
        """The load that is under way, begun if there is none."""
        if slot.loading is None:
            slot.error = None
            if slot.fetching is None:  # which may hang for long already
                slot.progress_at = self._clock()
            slot.loading = _watched(self._load(slot))
        return slot.loading

    async def fetched(self, slot: Slot[M]) -> None:
        """Have the weights on this machine. Raises ModelLoadError."""
        if slot.fetching is None:
            slot.progress_at = self._clock()
            slot.fetching = _watched(self._fetch(slot))
        await asyncio.shield(slot.fetching)

    def stuck(self, slot: Slot[M], times: int = 1) -> bool:
        """Whether a load or a fetch has made no progress for so many times the limit."""
        under_way = slot.loading is not None or slot.fetching is not None
        return under_way and self._clock() - slot.progress_at > times * self._limits.stuck_s

    def give_up_when_stuck(self, slot: Slot[M]) -> None:
        """A thread cannot be ended: its model counts as failed until its replica is replaced."""
        if slot.loading is not None and self.stuck(slot):
            slot.error = ModelLoadError(f"Loading the model '{slot.spec.id}' does not end.")

    async def _load(self, slot: Slot[M]) -> M:
        start = self._clock()
        try:
            model = await self._load_in_steps(slot)
        except ModelLoadError as error:
            self._remember(slot, error)
            raise
        finally:
            slot.loading = None
        now = self._clock()
        slot.model, slot.n_bytes = model, model.memory_bytes
        slot.error, slot.failures, slot.last_used = None, 0, now
        slot.load_seconds = now - start
        logger.info("Loaded model %s in %.1f s.", slot.spec.id, slot.load_seconds)
        self._events.loaded(slot.spec.id, slot.load_seconds)
        return model

    async def _load_in_steps(self, slot: Slot[M]) -> M:
        spec = slot.spec
        if slot.leaving is not None:
            await slot.leaving
        await self.fetched(slot)
        slot.n_bytes = await self._loader.estimate(spec)
        await self._room.make(slot)
        try:
            return await self._loader.load(spec)
        except MemoryRefusedError as error:
            leaving = self._room.leaving()
            leaving += self._room.free(slot.n_bytes or math.inf, error.missing)
            if not leaving:
                raise
            await asyncio.gather(*leaving)
        return await self._loader.load(spec)

    async def _fetch(self, slot: Slot[M]) -> None:
        def progressed(done: int, total: int | None) -> None:  # on the download's thread
            slot.progress, slot.progress_at = (done, total), self._clock()

        try:
            await self._loader.fetch(slot.spec, progressed)
        finally:
            slot.progress, slot.fetching, slot.progress_at = None, None, self._clock()

    def _remember(self, slot: Slot[M], error: ModelLoadError) -> None:
        backoff = min(FIRST_BACKOFF_S * 2**slot.failures, LONGEST_BACKOFF_S)
        slot.failures = min(slot.failures + 1, MAX_DOUBLINGS)
        slot.error, slot.retry_at, slot.n_bytes = error, self._clock() + backoff, 0
        logger.warning("Loading model %s failed: %s", slot.spec.id, error.message)
        self._events.load_failed(slot.spec.id)


def _watched(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that may fail with nobody waiting for it any more."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
