"""One request to us as many to a model: a few of them wait at once, so that they leave room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from models.errors import OverloadedError

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")

AT_ONCE = 64
"""Enough to share calls; the queue has room for many times more."""


async def fan_out(
    submit: Callable[[RequestT], Awaitable[ResultT]], requests: Sequence[RequestT]
) -> list[ResultT]:
    """Every result, in order; when one fails, the others are dropped.

    OverloadedError only for what others have waiting: a request that finds no room beside its own
    kind goes on when one of them has been answered.
    """
    feed = _Feed(submit)
    tasks = [asyncio.create_task(feed.answer(request)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


class _Feed(Generic[RequestT, ResultT]):
    def __init__(self, submit: Callable[[RequestT], Awaitable[ResultT]]) -> None:
        self._submit = submit
        self._room = asyncio.Semaphore(AT_ONCE)
        self._submitted = 0
        self._answered = asyncio.Event()

    async def answer(self, request: RequestT) -> ResultT:
        async with self._room:
            while True:
                self._submitted += 1
                try:
                    result = await self._submit(request)
                except OverloadedError:
                    if self._submitted == 1:
                        raise
                else:
                    self._let_others_try()
                    return result
                finally:
                    self._submitted -= 1
                await self._answered.wait()

    def _let_others_try(self) -> None:
        self._answered.set()
        self._answered = asyncio.Event()
