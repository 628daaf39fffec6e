"""How long a request waits for a task to wake: Serve itself waits for a replica without limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from models.errors import LoadTimeoutError

T = TypeVar("T")
RETRY_AFTER_S = 5.0

logger = logging.getLogger("ray.serve")


class WakeDeadline:
    """Ends calls of a task that has had no running replica for them in time.

    `running` says how many replicas run; it is asked whenever a call has had no answer for another
    `deadline_s`. Where one runs, the call has reached it or waits its turn, which other deadlines
    bound.
    """

    def __init__(self, task: str, running: Callable[[], Awaitable[int]], deadline_s: float) -> None:
        self._task = task
        self._running = running
        self._deadline_s = deadline_s

    async def first(self, answer: Awaitable[T]) -> T:
        """The first answer of a call. Raises LoadTimeoutError."""
        try:
            async with asyncio.timeout(None) as waiting:
                with self._watched(waiting):
                    return await answer
        except TimeoutError:
            if not waiting.expired():
                raise
            message = f"No replica for {self._task} has started yet."
            raise LoadTimeoutError(message, RETRY_AFTER_S) from None

    @contextmanager
    def _watched(self, waiting: asyncio.Timeout) -> Iterator[None]:
        """A timer and not a task: nearly every call is answered before it fires."""
        loop = asyncio.get_running_loop()
        watch: asyncio.Task[None] | None = None

        def begin() -> None:
            nonlocal watch
            watch = loop.create_task(self._end_when_asleep(waiting))

        timer = loop.call_later(self._deadline_s, begin)
        try:
            yield
        finally:
            timer.cancel()
            if watch is not None:
                watch.cancel()

    async def _end_when_asleep(self, waiting: asyncio.Timeout) -> None:
        while await self._awake():  # noqa: ASYNC110 - what it asks about has no event
            await asyncio.sleep(self._deadline_s)
        waiting.reschedule(asyncio.get_running_loop().time())

    async def _awake(self) -> bool:
        try:
            return await self._running() > 0
        except Exception:
            logger.exception("The replicas of %s cannot be counted", self._task)
            return True
