"""What waits for one model at one ingress: bounded, and fair between callers."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from models.drain_rate import DrainRate
from models.errors import OverloadedError

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")


@dataclass(slots=True, eq=False)
class Waiting(Generic[RequestT, ResultT]):
    """A request, whose it is, and where its answer goes. `size` is in the unit of the queue."""

    request: RequestT
    caller: str
    size: int
    future: asyncio.Future[ResultT] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    queued: bool = False


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """How many requests may wait, how large they may be together, and for how long.

    `call_requests` and `call_size` are what one call takes along.
    """

    requests: int
    size: int
    seconds: float
    call_requests: int = 1
    call_size: int = 1 << 62


class FairQueue(Generic[RequestT, ResultT]):
    """Callers take turns, request by request. Event loop only.

    When it is full, a caller with fewer requests than the one with the most takes the place of that
    one's newest, or of as many as it needs room for, if it has fewer even then. A request above the
    bounds is taken while nothing else waits: otherwise it could never be answered.
    """

    def __init__(self, bounds: QueueBounds) -> None:
        self._bounds = bounds
        self._callers: dict[str, deque[Waiting[RequestT, ResultT]]] = {}
        self._count = 0
        self._size = 0
        self.rate = DrainRate()
        """Of calls: how long one takes says little of the next one's size, which may be another."""

    def __len__(self) -> int:
        return self._count

    def add(self, entry: Waiting[RequestT, ResultT]) -> None:
        """Raises OverloadedError, or has others' requests raise it."""
        for newest in self._places_for(entry):
            self.discard(newest)
            if not newest.future.done():  # its client has just gone
                newest.future.set_exception(self._overloaded())
        self._callers.setdefault(entry.caller, deque()).append(entry)
        entry.queued = True
        self._count += 1
        self._size += entry.size

    def take(self) -> list[Waiting[RequestT, ResultT]]:
        """Those whose turn it is, for one call; the first one also when it is larger than that."""
        taken: list[Waiting[RequestT, ResultT]] = []
        size = 0
        while self._callers and len(taken) < self._bounds.call_requests:
            caller, own = next(iter(self._callers.items()))
            entry = own[0]
            if taken and size + entry.size > self._bounds.call_size:
                break
            size += entry.size
            taken.append(entry)
            self.discard(entry)
            if caller in self._callers:  # to the end of the line
                self._callers[caller] = self._callers.pop(caller)
        return taken

    def discard(self, entry: Waiting[RequestT, ResultT]) -> None:
        """Nothing happens when the entry has been taken."""
        if not entry.queued:
            return
        own = self._callers[entry.caller]
        own.remove(entry)
        entry.queued = False
        self._count -= 1
        self._size -= entry.size
        if not own:
            del self._callers[entry.caller]

    def _places_for(self, entry: Waiting[RequestT, ResultT]) -> list[Waiting[RequestT, ResultT]]:
        """Those that leave for it: none unless they make enough room. Raises OverloadedError."""
        places: list[Waiting[RequestT, ResultT]] = []
        count, size = self._count, self._size
        if not self._is_full(count, size, entry.size):
            return places
        own = len(self._callers.get(entry.caller, ()))
        left = {caller: len(waiting) for caller, waiting in self._callers.items()}
        while self._is_full(count, size, entry.size):
            greediest = max(left, key=left.__getitem__)
            if left[greediest] <= own + 1 or entry.size > self._bounds.size:
                raise self._overloaded()
            left[greediest] -= 1
            newest = self._callers[greediest][left[greediest]]
            places.append(newest)
            count, size = count - 1, size - newest.size
        return places

    def _is_full(self, count: int, size: int, added: int) -> bool:
        """Whether what waits leaves no room; where nothing does, there always is some."""
        bounds = self._bounds
        if not count:
            return False
        if count >= bounds.requests or size + added > bounds.size:
            return True
        return self.rate.seconds(self._calls(count, size)) > bounds.seconds

    def _calls(self, count: int, size: int) -> float:
        """That will take along what waits."""
        return max(count / self._bounds.call_requests, size / self._bounds.call_size)

    def _overloaded(self) -> OverloadedError:
        wait = self.rate.retry_after(self._calls(self._count, self._size))
        return OverloadedError("Too many requests are waiting for this model.", wait)
