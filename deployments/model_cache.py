"""The models of one replica: loaded on first use, once for all who wait, failures remembered.

Loading never happens in a constructor: Serve gives a deployment up for good after three constructor
failures before its first replica, whereas a load that fails here answers its waiters and is tried
again later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from config.catalog import ModelSpec
from models.base import Model
from models.errors import LoadTimeoutError, ModelError, ModelLoadError, ModelNotFoundError
from models.types import ModelStatus

M = TypeVar("M", bound=Model)
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0

logger = logging.getLogger("ray.serve")


@dataclass(slots=True)
class _Slot(Generic[M]):
    spec: ModelSpec
    model: M | None = None
    loading: asyncio.Task[M] | None = None
    error: ModelLoadError | None = None
    failures: int = 0
    retry_at: float = field(default=0.0)
    load_seconds: float = 0.0


class ModelCache(Generic[M]):
    """Catalogue id -> loaded model. `load` is blocking and runs in a thread of its own."""

    def __init__(
        self, specs: Iterable[ModelSpec], load: Callable[[ModelSpec], M], *, deadline_s: float
    ) -> None:
        self._slots = {spec.id: _Slot[M](spec) for spec in specs}
        self._load = load
        self._deadline_s = deadline_s

    async def get(self, model_id: str) -> M:
        """The loaded model. Waits at most the load deadline.

        Raises ModelNotFoundError, LoadTimeoutError while the load goes on, ModelLoadError when it
        failed (for the back-off time without trying again).
        """
        slot = self._slots.get(model_id)
        if slot is None:
            raise ModelNotFoundError(model_id)
        if slot.model is not None:
            return slot.model
        self._refuse_during_backoff(slot)
        if slot.loading is None:
            slot.loading = asyncio.create_task(self._load_into(slot))
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.shield(slot.loading)
        except TimeoutError:
            message = f"The model '{model_id}' is still loading."
            raise LoadTimeoutError(message, retry_after=5.0) from None

    def _refuse_during_backoff(self, slot: _Slot[M]) -> None:
        wait = slot.retry_at - time.monotonic()
        if slot.error is not None and wait > 0:
            raise ModelLoadError(slot.error.message, retry_after=wait)

    async def _load_into(self, slot: _Slot[M]) -> M:
        start = time.monotonic()
        try:
            slot.model = await asyncio.to_thread(self._load_typed, slot.spec)
        except ModelLoadError as error:
            self._remember_failure(slot, error)
            raise
        finally:
            slot.loading = None
        slot.error, slot.failures = None, 0
        slot.load_seconds = time.monotonic() - start
        logger.info("Loaded model %s in %.1f s.", slot.spec.id, slot.load_seconds)
        return slot.model

    def _load_typed(self, spec: ModelSpec) -> M:
        """The thread's outermost frame: whatever a library raises is a typed error after it."""
        try:
            return self._load(spec)
        except ModelLoadError:
            raise
        except ModelError as error:
            raise ModelLoadError(error.message) from error
        except Exception as error:
            logger.exception("Loading model %s failed", spec.id)
            raise ModelLoadError(f"The model '{spec.id}' cannot be loaded.") from error

    def _remember_failure(self, slot: _Slot[M], error: ModelLoadError) -> None:
        slot.failures += 1
        backoff = min(FIRST_BACKOFF_S * 2 ** (slot.failures - 1), LONGEST_BACKOFF_S)
        slot.error, slot.retry_at = error, time.monotonic() + backoff
        logger.warning("Loading model %s failed: %s", slot.spec.id, error.message)

    def loaded(self) -> dict[str, M]:
        return {name: slot.model for name, slot in self._slots.items() if slot.model is not None}

    def status(self) -> tuple[ModelStatus, ...]:
        """State of every model that is not simply unloaded."""
        return tuple(s for slot in self._slots.values() if (s := _status(slot)) is not None)

    def close(self) -> None:
        """Free every model. Idempotent."""
        for slot in self._slots.values():
            model, slot.model = slot.model, None
            if model is not None:
                model.close()


def _status(slot: _Slot[M]) -> ModelStatus | None:
    if slot.model is not None:
        return ModelStatus(
            slot.spec.id, "loaded", slot.model.memory_bytes, load_seconds=slot.load_seconds
        )
    if slot.loading is not None:
        return ModelStatus(slot.spec.id, "loading")
    if slot.error is not None:
        return ModelStatus(slot.spec.id, "failed", reason=slot.error.message)
    return None
