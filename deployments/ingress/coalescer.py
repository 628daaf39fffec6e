"""Many small requests for one model, few calls to its replica.

While as many shared calls as allowed are in flight, further requests gather; when one returns,
those that have gathered leave together in the next. A lone request leaves at once: no timer.
Requests above the size limit have a lane of their own, in which each is a call, so that they never
hold small ones up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from config.settings import CoalescingSettings
from deployments.ingress.fair_queue import FairQueue, QueueBounds, Waiting
from models.errors import MessageTooLargeError, ModelError, ReplicaLostError

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")

Call = Callable[[list[RequestT]], Awaitable[list[ResultT | ModelError]]]


@dataclass(frozen=True, slots=True)
class Calls(Generic[RequestT, ResultT]):
    """The ways to send requests to a replica.

    `alone` is for one request and may be repeated when the replica dies; `shared` is for several,
    and is not: `again` is then called for each of them, and is not repeated. So it is when they are
    too large together to be passed on.
    """

    alone: Call[RequestT, ResultT]
    shared: Call[RequestT, ResultT]
    again: Call[RequestT, ResultT]


class Coalescer(Generic[RequestT, ResultT]):
    """The requests of one ingress replica for one model. Event loop only.

    `size` measures a request in the unit of the settings' characters.
    """

    def __init__(
        self,
        calls: Calls[RequestT, ResultT],
        size: Callable[[RequestT], int],
        settings: CoalescingSettings,
    ) -> None:
        bounds = QueueBounds(settings.max_waiting, settings.max_waiting_chars, settings.max_wait_s)
        shared = replace(
            bounds, call_requests=settings.max_requests, call_size=settings.max_call_chars
        )
        self._size = size
        self._max_small = settings.max_request_chars if settings.enabled else -1
        self._small = _Lane(calls, FairQueue(shared), settings.max_in_flight)
        self._large = _Lane(calls, FairQueue(bounds), settings.max_large_in_flight)

    async def submit(self, request: RequestT, caller: str = "") -> ResultT:
        """The request's own result; raises its own error, or the one of the whole call.

        OverloadedError when too much waits. A request whose caller goes away is dropped from the
        queue; a call whose callers have all gone is cancelled.
        """
        size = self._size(request)
        lane = self._small if size <= self._max_small else self._large
        return await lane.submit(Waiting(request, caller, size))


class _Lane(Generic[RequestT, ResultT]):
    def __init__(
        self,
        calls: Calls[RequestT, ResultT],
        queue: FairQueue[RequestT, ResultT],
        max_in_flight: int,
    ) -> None:
        self._calls = calls
        self._queue = queue
        self._max_in_flight = max_in_flight
        self._in_flight: set[asyncio.Task[None]] = set()

    async def submit(self, entry: Waiting[RequestT, ResultT]) -> ResultT:
        self._queue.add(entry)
        self._depart()
        try:
            return await entry.future
        finally:
            self._queue.discard(entry)

    def _depart(self) -> None:
        while self._queue and len(self._in_flight) < self._max_in_flight:
            group = self._queue.take()
            # In a context of its own: a shared call belongs to no request, and Serve cancels
            # what was called in the context of a request whose client has gone.
            task = asyncio.create_task(self._answer(group), context=Context())
            self._in_flight.add(task)
            task.add_done_callback(self._returned)
            _cancel_when_abandoned(task, [entry.future for entry in group])

    def _returned(self, task: asyncio.Task[None] | None) -> None:
        """The replica is done with a call; may be told twice."""
        if task is not None:
            self._in_flight.discard(task)
        self._depart()

    async def _answer(self, group: Sequence[Waiting[RequestT, ResultT]]) -> None:
        futures = [entry.future for entry in group]
        try:
            results = await self._counted(group)
            self._returned(asyncio.current_task())
            # One per turn of the event loop: what all of them do next, at once, would hold up
            # whatever else passes through it, as the next piece of a running stream.
            for future, result in zip(futures, results, strict=True):
                _settle(future, result)
                await asyncio.sleep(0)
        except BaseException as error:
            _fail(futures, error)
            raise

    async def _counted(
        self, group: Sequence[Waiting[RequestT, ResultT]]
    ) -> Sequence[ResultT | Exception]:
        """The results, each of them the error of the whole call if it fails."""
        try:
            results = await self._results(group)
        except ModelError as error:
            self._queue.rate.interrupt()
            return [error] * len(group)
        except BaseException:
            self._queue.rate.interrupt()
            raise
        self._queue.rate.left(1, more=bool(self._queue))
        return results

    async def _results(
        self, group: Sequence[Waiting[RequestT, ResultT]]
    ) -> Sequence[ResultT | Exception]:
        """One of the requests may have killed the replica, or they are too large together: then
        they go on one by one."""
        requests = [entry.request for entry in group]
        if len(requests) == 1:
            return await self._calls.alone(requests)
        try:
            return await self._calls.shared(requests)
        except (ReplicaLostError, MessageTooLargeError):
            again = [asyncio.ensure_future(self._again(entry)) for entry in group]
            for entry, task in zip(group, again, strict=True):
                _cancel_when_abandoned(task, [entry.future])
            return await asyncio.gather(*again)

    async def _again(self, entry: Waiting[RequestT, ResultT]) -> ResultT | Exception:
        try:
            return (await self._calls.again([entry.request]))[0]
        except Exception as error:  # a defect too ends no request but its own
            return error
        except asyncio.CancelledError:
            if not entry.future.cancelled():  # it is the whole call that is cancelled
                raise
            return ModelError("cancelled")


def _settle(future: asyncio.Future[ResultT], result: ResultT | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
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


def _cancel_when_abandoned(task: asyncio.Task[Any], futures: list[asyncio.Future[ResultT]]) -> None:
    left = len(futures)

    def count(future: asyncio.Future[ResultT]) -> None:
        nonlocal left
        left -= future.cancelled()
        if left == 0:
            task.cancel()

    for future in futures:
        future.add_done_callback(count)
