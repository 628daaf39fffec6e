"""One at a time, first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

LOOK_S = 0.05
MAX_TURN_S = 30.0
"""A load or a download may take many minutes, and what waits may be for other models."""


class Turns:
    """A lock that may be given back before the block ends. Event loop only."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, until: Callable[[], bool] | None = None) -> AsyncGenerator[None]:
        """The turn is over when the block ends, or as soon as `until` says so, and at the latest
        after MAX_TURN_S."""
        await self._lock.acquire()
        holding = True

        def give_back() -> None:
            nonlocal holding
            if holding:
                holding = False
                self._lock.release()

        latest = asyncio.get_running_loop().call_later(MAX_TURN_S, give_back)
        looking = None if until is None else asyncio.create_task(_call_when(until, give_back))
        try:
            yield
        finally:
            give_back()
            latest.cancel()
            if looking is not None:
                looking.cancel()


async def _call_when(condition: Callable[[], bool], action: Callable[[], None]) -> None:
    while not condition():  # noqa: ASYNC110 - what it asks about has no event
        await asyncio.sleep(LOOK_S)
    action()
