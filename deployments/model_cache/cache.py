"""The models of one replica: loaded on first use, once for all who wait, freed when idle.

Loading never happens in a constructor: Serve gives a deployment up for good after three constructor
failures before its first replica, whereas a load that fails here answers its waiters and is tried
again later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from config.catalog import ModelSpec
from deployments.model_cache.events import ModelEvents, NoEvents
from deployments.model_cache.loader import ModelLoader
from deployments.model_cache.loads import LoadLimits, ModelLoads
from deployments.model_cache.room import ModelRoom
from deployments.model_cache.slot import PINNED, Slot
from deployments.threads import to_the_end
from models.base import Model
from models.errors import ModelNotFoundError
from models.types.status import ModelStatus

M = TypeVar("M", bound=Model)
T = TypeVar("T")
TTL_S = 300.0


class ModelCache(Generic[M]):
    """Catalogue id -> loaded model. `sweep` is to be called about once a second.

    An idle model leaves after `ttl_s`; all together may hold `budget_bytes`. Models of `preload`
    are loaded by the first sweep, and pinned.
    """

    def __init__(
        self,
        specs: Iterable[ModelSpec],
        loader: ModelLoader[M],
        limits: LoadLimits,
        *,
        ttl_s: float = TTL_S,
        budget_bytes: int | None = None,
        preload: Collection[str] = (),
        events: ModelEvents | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._slots: dict[str, Slot[M]] = {}
        for spec in specs:
            wanted = spec.id in preload
            self._slots[spec.id] = Slot(spec, PINNED if wanted else ttl_s, wanted)
        events = events or NoEvents()
        self._room = ModelRoom(self._slots.values(), loader, budget_bytes, events)
        self._loads = ModelLoads(loader, self._room, limits, clock, events)

    @asynccontextmanager
    async def use(self, model_id: str) -> AsyncIterator[M]:
        """The loaded model, which stays while the block runs. Waits at most the load deadline.

        Raises ModelNotFoundError, LoadTimeoutError while the load goes on, ModelLoadError when it
        failed (for the back-off time without trying again).
        """
        slot = self._slot(model_id)
        slot.in_flight += 1
        try:
            yield slot.model if slot.model is not None else await self._loads.loaded(slot)
        finally:
            slot.in_flight -= 1
            slot.last_used = self._clock()
            self._leave_at_once_if_asked(slot)

    async def run(self, model_id: str, work: Callable[[M], T]) -> T:
        """`work(model)` in a thread; the model stays until the thread is done."""
        async with self.use(model_id) as model:
            return await to_the_end(work, model)

    def keep(self, model_id: str, seconds: float | None) -> None:
        """How long the model stays idle from now on, until it leaves: PINNED is for ever, 0 not at
        all, None as the settings say. A pinned model is loaded. Raises ModelNotFoundError."""
        slot = self._slot(model_id)
        slot.wanted = (slot.default_ttl_s if seconds is None else seconds) == PINNED
        there = slot.model is not None or slot.loading is not None
        slot.keep_alive_s = seconds if there or slot.wanted else None
        slot.last_used = self._clock()
        self._leave_at_once_if_asked(slot)

    async def load(self, model_id: str) -> None:
        """Load at once, whatever failed before, and wait for as long as it takes.

        Raises ModelNotFoundError, ModelLoadError.
        """
        slot = self._slot(model_id)
        if slot.model is None:
            await asyncio.shield(self._loads.begin(slot))

    async def download(self, model_id: str) -> None:
        """Have the weights on this machine. Raises ModelNotFoundError, ModelLoadError."""
        await self._loads.fetched(self._slot(model_id))

    def sweep(self) -> None:
        """Let models go that are idle for too long or too many; load those that are wanted."""
        now = self._clock()
        for slot in self._slots.values():
            if slot.expired(now):
                self._room.leave(slot, "idle")
            elif slot.wanted and slot.model is None and now >= slot.retry_at:
                self._loads.begin(slot)
            self._loads.give_up_when_stuck(slot)
        self._room.shed()

    @property
    def in_flight(self) -> int:
        """Requests that use a model or wait for one."""
        return sum(slot.in_flight for slot in self._slots.values())

    @property
    def empty(self) -> bool:
        """Nothing is loaded, being loaded or being freed."""
        return all(
            slot.model is None and slot.loading is None and slot.leaving is None
            for slot in self._slots.values()
        )

    def stuck(self) -> list[str]:
        """Models whose load or download was given up although its thread still runs, and that are
        worth a new process: at once while no request is in flight, else after twice the time."""
        times = 2 if self.in_flight else 1
        return [name for name, slot in self._slots.items() if self._loads.stuck(slot, times)]

    def holds_replica(self, idle_timeout_s: float) -> bool:
        """Whether a model is being loaded or downloaded, or a client asked for one longer than an
        idle replica stays."""
        now = self._clock()
        return any(slot.holds_replica(now, idle_timeout_s) for slot in self._slots.values())

    def loaded(self) -> dict[str, M]:
        return {name: slot.model for name, slot in self._slots.items() if slot.model is not None}

    def state(self, model_id: str) -> ModelStatus:
        """Of one model, whatever it is. Raises ModelNotFoundError."""
        status = self._slot(model_id).status(self._clock())
        return status or ModelStatus(model_id, "unloaded")

    def status(self) -> tuple[ModelStatus, ...]:
        """State of every model that is not simply unloaded."""
        now = self._clock()
        return tuple(s for slot in self._slots.values() if (s := slot.status(now)) is not None)

    def close(self) -> None:
        """Free every model. Idempotent."""
        for slot in self._slots.values():
            model, slot.model = slot.model, None
            if model is not None:
                model.close()

    def _slot(self, model_id: str) -> Slot[M]:
        slot = self._slots.get(model_id)
        if slot is None:
            raise ModelNotFoundError(model_id)
        return slot

    def _leave_at_once_if_asked(self, slot: Slot[M]) -> None:
        if slot.ttl_s == 0 and slot.idle:
            self._room.leave(slot, "asked")
