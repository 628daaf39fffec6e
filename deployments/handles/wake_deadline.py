"""How long a request waits for a task to wake: Serve itself waits for a replica without limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from models.errors import LoadTimeoutError

T = TypeVar("T")
RETRY_AFTER_S = 5.0


class WakeDeadline:
    """Ends calls of a task that has had no running replica for them in time.

    `running` says how many replicas run; it is asked once, when a call has had no answer for
    `deadline_s`. Where one runs, the call has reached it or waits its turn, which other deadlines
    bound.
    """

    def __init__(self, task: str, running: Callable[[], Awaitable[int]], deadline_s: float) -> None:
        self._task = task
        self._running = running
        self._deadline_s = deadline_s
        self._checks: set[asyncio.Task[None]] = set()

    async def first(self, answer: Awaitable[T]) -> T:
        """The first answer of a call. Raises LoadTimeoutError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as waiting:
                timer = loop.call_later(self._deadline_s, self._check, waiting)
                try:
                    return await answer
                finally:
                    timer.cancel()
        except TimeoutError:
            if not waiting.expired():
                raise
            message = f"No replica for {self._task} has started yet."
            raise LoadTimeoutError(message, RETRY_AFTER_S) from None

    def _check(self, waiting: asyncio.Timeout) -> None:
        check = asyncio.create_task(self._end_if_asleep(waiting))
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)

    async def _end_if_asleep(self, waiting: asyncio.Timeout) -> None:
        if await self._running() == 0:
            try:
                waiting.reschedule(asyncio.get_running_loop().time())
            except RuntimeError:
                return  # answered meanwhile
