"""A task's replicas as the ingress sees them; the real ones are `handles.TaskHandle`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol


class Replicas(Protocol):
    """The replicas of one task's deployment."""

    async def call(self, method: str, *args: Any) -> Any:
        """The result of an idempotent method; tried again once if the replica dies."""

    async def call_once(self, method: str, *args: Any) -> Any:
        """The result of a method that must not run twice."""

    async def call_again(self, method: str, *args: Any) -> Any:
        """The result of an idempotent method that was lost once; one at a time, never again."""

    def stream(self, method: str, *args: Any, begun: Callable[[], bool]) -> AsyncGenerator[Any]:
        """The items of a generator method; called again once unless `begun`."""

    async def broadcast(self, method: str, *args: Any) -> list[Any]:
        """The result from every running replica; none are started for it."""
