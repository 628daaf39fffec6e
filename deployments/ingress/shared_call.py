"""One question at a time: who asks while it is under way gets the same answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SharedCall(Generic[T]):
    """Calls `ask`, once for all that wait for it. Event loop only.

    In a context of its own: Serve cancels what was called in the context of a request whose client
    has gone, and the answer is for others too.
    """

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._ask = ask
        self._asking: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """The answer, or what asking raised."""
        if self._asking is None or self._asking.done():
            loop = asyncio.get_running_loop()
            self._asking = loop.create_task(self._ask(), context=Context())
            self._asking.add_done_callback(_take_note)
        return await asyncio.shield(self._asking)


def _take_note(asking: asyncio.Task[Any]) -> None:
    """All that waited may have gone."""
    if not asking.cancelled():
        asking.exception()
