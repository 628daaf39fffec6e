"""Many small requests for one model, few calls to its replica.

While as many shared calls as allowed are in flight, further requests gather; when one returns, all
that have gathered leave together in the next. A lone request leaves at once: there is no timer.
A request above the size limit leaves alone and at once, so that it never holds small ones up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from models.errors import ModelError, ReplicaLostError

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")

Call = Callable[[list[RequestT]], Awaitable[list[ResultT | ModelError]]]


class Coalescer(Generic[RequestT, ResultT]):
    """The requests of one ingress replica for one model. Event loop only.

    `call` is for one request and may be repeated when the replica dies; `shared_call` is for
    several, and is not: each of them is called again by itself.
    `size` measures a request in the unit of `max_size`.
    """

    def __init__(
        self,
        call: Call[RequestT, ResultT],
        *,
        shared_call: Call[RequestT, ResultT],
        size: Callable[[RequestT], int],
        max_size: int,
        max_requests: int,
        max_in_flight: int,
    ) -> None:
        self._call = call
        self._shared_call = shared_call
        self._size = size
        self._max_size = max_size
        self._max_requests = max_requests
        self._max_in_flight = max_in_flight
        self._waiting: list[tuple[RequestT, asyncio.Future[ResultT]]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def submit(self, request: RequestT) -> ResultT:
        """The request's own result; raises its own error, or the one of the whole call.

        A caller that goes away is dropped from the queue; a shared call whose callers have all
        gone is cancelled.
        """
        if self._size(request) > self._max_size:
            return _unwrap((await self._call([request]))[0])
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        self._depart()
        return await future

    @property
    def idle(self) -> bool:
        return not self._calls and not self._waiting

    def _depart(self) -> None:
        while self._waiting and len(self._calls) < self._max_in_flight:
            group = [entry for entry in self._waiting if not entry[1].done()]
            leaving, self._waiting = group[: self._max_requests], group[self._max_requests :]
            if leaving:
                # In a context of its own: a shared call belongs to no request, and Serve cancels
                # what was called in the context of a request whose client has gone.
                task = asyncio.create_task(self._answer(leaving), context=Context())
                self._calls.add(task)
                task.add_done_callback(self._returned)
                _cancel_when_abandoned(task, [future for _, future in leaving])

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._depart()

    async def _answer(self, group: list[tuple[RequestT, asyncio.Future[ResultT]]]) -> None:
        futures = [future for _, future in group]
        try:
            results = await self._results([request for request, _ in group])
        except ModelError as error:
            results = [error] * len(futures)
        except BaseException as error:
            _fail(futures, error)
            raise
        for future, result in zip(futures, results, strict=True):
            _settle(future, result)

    async def _results(self, requests: list[RequestT]) -> list[ResultT | ModelError]:
        """One of the requests may have killed the replica: they then go on one by one."""
        if len(requests) == 1:
            return await self._call(requests)
        try:
            return await self._shared_call(requests)
        except ReplicaLostError:
            return list(await asyncio.gather(*map(self._alone, requests)))

    async def _alone(self, request: RequestT) -> ResultT | ModelError:
        try:
            return (await self._call([request]))[0]
        except ModelError as error:
            return error


def _settle(future: asyncio.Future[ResultT], result: ResultT | ModelError) -> None:
    if future.done():
        return
    if isinstance(result, ModelError):
        future.set_exception(result)
    else:
        future.set_result(result)


def _fail(futures: list[asyncio.Future[ResultT]], error: BaseException) -> None:
    for future in futures:
        if future.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)


def _unwrap(result: ResultT | ModelError) -> ResultT:
    if isinstance(result, ModelError):
        raise result
    return result


def _cancel_when_abandoned(
    task: asyncio.Task[None], futures: list[asyncio.Future[ResultT]]
) -> None:
    left = len(futures)

    def count(future: asyncio.Future[ResultT]) -> None:
        nonlocal left
        left -= future.cancelled()
        if left == 0:
            task.cancel()

    for future in futures:
        future.add_done_callback(count)
