"""What engines tell of themselves to those who watch them; each does what it can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from models.continuous_batching.decode_loop import EngineStats


@runtime_checkable
class BatchingGenerator(Protocol):
    """A generation engine with continuous batching."""

    @property
    def stats(self) -> EngineStats: ...

    def take_waits(self) -> list[float]:
        """Seconds that requests have waited to be admitted, each told once."""


@runtime_checkable
class QueueingModel(Protocol):
    """A model whose inputs wait for shared batches."""

    @property
    def queued_tokens(self) -> int: ...
