"""The memory of one replica's models: who leaves when another one needs room."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Collection, Iterable
from typing import Any

from deployments.model_cache.events import ModelEvents, Reason
from deployments.model_cache.loader import ModelLoader
from deployments.model_cache.slot import PINNED, Slot
from models.errors import MemoryRefusedError

logger = logging.getLogger("ray.serve")


class ModelRoom:
    """Idle models leave, the least recently used first; pinned ones and those in use stay."""

    def __init__(
        self,
        slots: Collection[Slot[Any]],
        loader: ModelLoader[Any],
        budget_bytes: int | None,
        events: ModelEvents,
    ) -> None:
        self._slots = slots
        self._loader = loader
        self._budget_bytes = budget_bytes
        self._events = events

    def leave(self, slot: Slot[Any], reason: Reason) -> asyncio.Task[None]:
        """Free an idle model. Who wants it again waits for this first."""
        model, slot.model = [slot.model], None
        slot.n_bytes, slot.keep_alive_s = 0, None
        leaving = asyncio.create_task(self._loader.unload(slot.spec, model))
        slot.leaving = leaving

        def left(task: asyncio.Task[None]) -> None:
            slot.leaving = None
            logger.info("Unloaded model %s: %s.", slot.spec.id, reason)
            self._events.unloaded(slot.spec.id, reason)

        leaving.add_done_callback(left)
        return leaving

    async def make(self, slot: Slot[Any]) -> None:
        """Room within the replica's own budget for a model that is about to be loaded.

        Raises MemoryRefusedError when those in use leave too little.
        """
        await asyncio.gather(*self.shed())
        excess = self._excess()
        if slot.n_bytes and excess > 0:
            raise MemoryRefusedError(
                f"The model '{slot.spec.id}' needs {slot.n_bytes} bytes, {excess} more than its "
                f"task has left; in use: {self._names(slot)}."
            )

    def shed(self) -> list[asyncio.Task[None]]:
        """Stay within the budget, as far as idle models make up for it; those that leave."""
        return self.free(self._excess())

    def free(self, n_bytes: float, missing: float = 0) -> list[asyncio.Task[None]]:
        """Let idle models go that hold `n_bytes` together, or all that are; those that leave.

        None does when all together would not make up for what is `missing`.
        """
        idle = least_recently_used(self._slots, math.inf)
        if sum(slot.n_bytes for slot in idle) < missing:
            return []
        return [self.leave(slot, "room") for slot in least_recently_used(idle, n_bytes)]

    def leaving(self) -> list[asyncio.Task[None]]:
        """Models that are being freed."""
        return [slot.leaving for slot in self._slots if slot.leaving is not None]

    def _excess(self) -> float:
        if self._budget_bytes is None:
            return 0
        return sum(slot.n_bytes for slot in self._slots) - self._budget_bytes

    def _names(self, newcomer: Slot[Any]) -> str:
        others = [slot.spec.id for slot in self._slots if slot.n_bytes and slot is not newcomer]
        return ", ".join(others) or "nothing"


def least_recently_used(slots: Iterable[Slot[Any]], n_bytes: float) -> list[Slot[Any]]:
    """Idle models that together hold `n_bytes`, or all of them; pinned ones stay."""
    idle = [slot for slot in slots if slot.idle and slot.ttl_s < PINNED]
    chosen: list[Slot[Any]] = []
    for slot in sorted(idle, key=lambda s: s.last_used):
        if n_bytes <= 0:
            break
        chosen.append(slot)
        n_bytes -= slot.n_bytes
    return chosen
