"""What clients have given to a batcher, and whose turn it is."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from models.errors import ModelError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Submission(Generic[ItemT, ResultT]):
    """The items of one `submit` call, the results so far, and which item is next."""

    def __init__(self, items: Sequence[ItemT], costs: Sequence[int]) -> None:
        self.items = items
        self.costs = costs
        self.future: Future[list[ResultT | ModelError]] = Future()
        self.results: list[ResultT | ModelError | None] = [None] * len(items)
        self.missing = len(items)
        self.waiting_cost = sum(costs)
        self.since = time.monotonic()
        self._next = 0
        self._open = threading.Lock()

    @property
    def next_cost(self) -> int:
        return self.costs[self._next]

    @property
    def exhausted(self) -> bool:
        return self._next == len(self.items)

    def take(self) -> Entry[ItemT, ResultT]:
        """The next item, which then no longer waits."""
        entry = Entry(self, self._next)
        self.waiting_cost -= self.next_cost
        self._next += 1
        return entry

    def settle(self, index: int, result: ResultT | ModelError) -> None:
        self.results[index] = result
        self.missing -= 1
        if self.missing == 0:
            self.finish(None)

    def finish(self, error: ModelError | None) -> None:
        """Answer the future once; later calls and cancelled futures are left alone."""
        if not self._open.acquire(blocking=False):
            return
        if not self.future.set_running_or_notify_cancel():
            return
        if error is None:
            self.future.set_result(self.results)  # type: ignore[arg-type]  # none is missing
        else:
            self.future.set_exception(error)


@dataclass(frozen=True, slots=True)
class Entry(Generic[ItemT, ResultT]):
    """One item of a submission."""

    submission: Submission[ItemT, ResultT]
    index: int

    @property
    def item(self) -> ItemT:
        return self.submission.items[self.index]

    @property
    def cost(self) -> int:
        return self.submission.costs[self.index]


def longest_wait(batch: Sequence[Entry[ItemT, ResultT]]) -> float:
    """Seconds, of the submissions that begin with this batch."""
    now = time.monotonic()
    return max((now - e.submission.since for e in batch if e.index == 0), default=0.0)


class Turns(Generic[ItemT, ResultT]):
    """The submissions with items that wait; they take turns item by item. The owner locks.

    Where what would fill a batch by itself waits beside less, every other batch is only for the
    less.
    """

    def __init__(self) -> None:
        self._waiting: deque[Submission[ItemT, ResultT]] = deque()
        self._held_back = False
        self.cost = 0
        """Of all items that wait."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, submission: Submission[ItemT, ResultT]) -> None:
        self._waiting.append(submission)
        self.cost += submission.waiting_cost

    def drop(self, submission: Submission[ItemT, ResultT]) -> None:
        """Nothing happens when all its items have been taken."""
        if submission in self._waiting:
            self._waiting.remove(submission)
            self.cost -= submission.waiting_cost

    def drop_all(self) -> list[Submission[ItemT, ResultT]]:
        dropped = list(self._waiting)
        self._waiting.clear()
        self.cost = 0
        return dropped

    def take(self, room: int, items: int) -> list[Entry[ItemT, ResultT]]:
        """One item after another from those whose turn it is, up to so much cost and so many."""
        held_back, turns = self._split(room)
        batch: list[Entry[ItemT, ResultT]] = []
        while turns and len(batch) < items:
            if batch and turns[0].next_cost > room:
                break
            room -= turns[0].next_cost
            batch.append(turns[0].take())
            if turns[0].exhausted:
                turns.popleft()
            else:
                turns.rotate(-1)
        self._waiting = deque((*held_back, *turns))
        self.cost -= sum(entry.cost for entry in batch)
        return batch

    def _split(
        self, room: int
    ) -> tuple[list[Submission[ItemT, ResultT]], deque[Submission[ItemT, ResultT]]]:
        """Who is held back for one batch, and who takes part in it."""
        large = [s for s in self._waiting if s.waiting_cost > room]
        self._held_back = not self._held_back and 0 < len(large) < len(self._waiting)
        if not self._held_back:
            return [], deque(self._waiting)
        return large, deque(s for s in self._waiting if s.waiting_cost <= room)
