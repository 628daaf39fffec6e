"""The state of one model in one replica, and when it may leave."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from config.catalog import ModelSpec
from models.base import Model
from models.errors import ModelLoadError
from models.types.status import ModelStatus

M = TypeVar("M", bound=Model)
PINNED = math.inf
LIBRARIES = frozenset({"detectors", "classifiers"})
"""Engines of what clients have fitted: they hold no weights, and work on after a request."""


@dataclass(slots=True)
class Slot(Generic[M]):
    """Times are those of the cache's monotonic clock, in seconds."""

    spec: ModelSpec
    default_ttl_s: float
    wanted: bool = False
    """Loaded again whenever it is not there."""
    model: M | None = None
    fetching: asyncio.Task[None] | None = None
    loading: asyncio.Task[M] | None = None
    leaving: asyncio.Task[None] | None = None
    error: ModelLoadError | None = None
    failures: int = 0
    retry_at: float = 0.0
    load_seconds: float = 0.0
    n_bytes: int = 0
    """Memory of the loaded model, or the estimate for one that is being loaded."""
    in_flight: int = 0
    last_used: float = 0.0
    keep_alive_s: float | None = None
    """What a client asked for, until the model leaves."""
    progress: tuple[int, int | None] | None = None
    """Bytes of a download: so far, and in all where that is known."""
    progress_at: float = 0.0
    """When a load or a fetch that is under way was last seen to go on."""

    @property
    def ttl_s(self) -> float:
        if self.spec.engine in LIBRARIES:
            return PINNED
        return self.default_ttl_s if self.keep_alive_s is None else self.keep_alive_s

    @property
    def pinned(self) -> bool:
        asked = self.keep_alive_s
        return (self.default_ttl_s if asked is None else asked) == PINNED

    @property
    def idle(self) -> bool:
        """Loaded, and nobody uses it."""
        return self.model is not None and not self.in_flight

    def expired(self, now: float) -> bool:
        return self.idle and now >= self.last_used + self.ttl_s

    def holds_replica(self, now: float, idle_timeout_s: float) -> bool:
        """Whether it is being loaded or fetched, which goes on when nobody waits, or a client asked
        for it longer than an idle replica stays."""
        if self.loading is not None or self.fetching is not None:
            return True
        asked = self.keep_alive_s or 0.0
        if asked <= idle_timeout_s:
            return False
        return bool(self.in_flight) or now < self.last_used + asked

    def status(self, now: float) -> ModelStatus | None:
        """None when it is simply unloaded."""
        if self.model is not None:
            return self._loaded_status(self.model, now)
        shared: dict[str, Any] = {"model_id": self.spec.id, "in_flight": self.in_flight}
        if self.error is not None:
            return ModelStatus(**shared, state="failed", reason=self.error.message)
        if self.progress is not None:
            done, total = self.progress
            return ModelStatus(**shared, state="downloading", done_bytes=done, total_bytes=total)
        if self.loading is not None:
            return ModelStatus(**shared, state="loading", memory_bytes=self.n_bytes)
        return None

    def _loaded_status(self, model: M, now: float) -> ModelStatus:
        expires = self.last_used + self.ttl_s - now
        return ModelStatus(
            self.spec.id,
            "loaded",
            model.memory_bytes,
            load_seconds=self.load_seconds,
            in_flight=self.in_flight,
            pinned=self.pinned,
            expires_in_s=max(0.0, expires) if self.idle and expires < PINNED else None,
        )
