"""Dynamic batching for models that answer many clients' requests in shared batches.

One compute thread takes whatever waits when it is free: at once when idle, and all that has
accumulated while it was busy otherwise. There is no timer: a fixed wait costs latency when idle and
cuts what accumulates into small batches when busy.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from models.compute_thread import ComputeThread
from models.errors import EngineDeadError, ModelError, OutOfMemoryError, OverloadedError
from models.padding import take_padding

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

LOGGER = logging.getLogger(__name__)
RATE_SMOOTHING = 0.3
RETRY_AFTER_BOUNDS = (1.0, 60.0)
SMALLEST_BUDGET = 1 / 16
"""Of `batch_cost`: what `batch_seconds` may lower it to."""


@dataclass(frozen=True, slots=True)
class BatchStats:
    """One computed batch. `cost` is in the batcher's units (tokens, for text models).

    `waited_s` is the longest that one of its submissions has waited for its first item to be taken;
    `padding` counts positions that were computed for nothing.
    """

    items: int
    cost: int
    seconds: float
    waited_s: float = 0.0
    padding: int = 0


BatchListener = Callable[[BatchStats], None]
"""Called on the compute thread after each batch; must not raise."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`batch_cost` and `batch_items` bound one batch, `queued_cost` bounds what may wait.

    A single item above `batch_cost` makes a batch of its own, and a submission above `queued_cost`
    is taken while nothing else waits: otherwise neither could ever be answered. `batch_seconds`
    lowers `batch_cost` to what the model has lately done in that time: whoever comes next waits for
    the batch in hand. `unit_seconds` is what one unit of cost may take before the thread is thought
    to hang, see `ComputeThread`.
    """

    batch_cost: int
    batch_items: int
    queued_cost: int
    batch_seconds: float | None = None
    unit_seconds: float = 0.005

    def room(self, rate: float) -> int:
        """The cost that a batch may have when the model does `rate` per second (0: unknown)."""
        if self.batch_seconds is None:
            return self.batch_cost
        smallest = int(self.batch_cost * SMALLEST_BUDGET)
        return min(self.batch_cost, max(smallest, int(rate * self.batch_seconds)))


class _Submission(Generic[ItemT, ResultT]):
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

    def take(self) -> _Entry[ItemT, ResultT]:
        """The next item, which then no longer waits."""
        entry = _Entry(self, self._next)
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
class _Entry(Generic[ItemT, ResultT]):
    submission: _Submission[ItemT, ResultT]
    index: int

    @property
    def item(self) -> ItemT:
        return self.submission.items[self.index]

    @property
    def cost(self) -> int:
        return self.submission.costs[self.index]


def _longest_wait(batch: Sequence[_Entry[ItemT, ResultT]]) -> float:
    """Seconds, of the submissions that begin with this batch."""
    now = time.monotonic()
    return max((now - e.submission.since for e in batch if e.index == 0), default=0.0)


class DynamicBatcher(Generic[ItemT, ResultT]):
    """Runs `compute` on one thread of its own over batches shared by all submissions.

    Submissions take turns item by item, so a single query joins the next batch even when a job of
    thousands waits; within a submission items go in order. Where what would fill a batch by itself
    waits beside less, every other batch is only for the less: a query then waits neither for the
    job nor for its own share of a batch full of the job. `compute` gets a list of items and
    returns one result or ModelError for each. When it raises, its items run again one by one, so
    that only the item at fault fails; an EngineDeadError from it ends the thread instead.
    """

    def __init__(
        self,
        compute: Callable[[list[ItemT]], Sequence[ResultT | ModelError]],
        cost: Callable[[ItemT], int],
        limits: BatchLimits,
        on_batch: BatchListener | None = None,
        name: str = "batcher",
    ) -> None:
        self._compute = compute
        self._cost = cost
        self._limits = limits
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._turns: deque[_Submission[ItemT, ResultT]] = deque()
        self._running: list[_Entry[ItemT, ResultT]] = []
        self._held_back = False
        self._queued_cost = 0
        self._drain_rate = 0.0
        self._ended: str | None = None
        self._thread = ComputeThread(self._run, name, limits.unit_seconds)
        self._thread.start()

    @property
    def queued_cost(self) -> int:
        """Cost units that wait, without the batch being computed."""
        return self._queued_cost

    @property
    def alive(self) -> bool:
        return self._ended is None

    def submit(self, items: Sequence[ItemT]) -> Future[list[ResultT | ModelError]]:
        """Queue items; the future's list has their results in order.

        Cancelling the future drops the items that have not been taken into a batch. Raises
        OverloadedError when the queue is full, EngineDeadError when the thread has ended.
        """
        submission: _Submission[ItemT, ResultT] = _Submission(items, [self._cost(i) for i in items])
        with self._changed:
            self.check_room(submission.waiting_cost)
            if items:
                self._turns.append(submission)
                self._queued_cost += submission.waiting_cost
                self._changed.notify()
        if not items:
            submission.finish(None)
        submission.future.add_done_callback(lambda _: self._drop(submission))
        return submission.future

    def check_room(self, cost: int, elsewhere: int = 0) -> None:
        """Raise what `submit` would raise now for items of this total cost.

        `elsewhere` is the cost of work on its way to `submit`: it counts as queued.
        """
        if self._ended is not None:
            raise EngineDeadError(self._ended)
        queued = self._queued_cost + elsewhere
        if queued and queued + cost > self._limits.queued_cost:
            raise OverloadedError("Too many requests are waiting for this model.", self._delay())

    def close(self) -> None:
        """End the thread after the batch in hand; whatever waits gets an EngineDeadError."""
        self._end("The engine has been closed.")
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _delay(self) -> float:
        """Seconds until the present queue should have drained."""
        low, high = RETRY_AFTER_BOUNDS
        if not self._drain_rate:
            return low
        return min(high, max(low, self._queued_cost / self._drain_rate))

    def _drop(self, submission: _Submission[ItemT, ResultT]) -> None:
        if not submission.future.cancelled():
            return
        with self._changed:
            if submission in self._turns:
                self._turns.remove(submission)
                self._queued_cost -= submission.waiting_cost

    def _end(self, reason: str) -> None:
        with self._changed:
            self._ended = self._ended or reason
            orphans = list(self._turns)
            self._turns.clear()
            self._queued_cost = 0
            self._changed.notify()
        for submission in orphans:
            submission.finish(EngineDeadError(reason))

    def _run(self) -> None:
        try:
            while batch := self._take():
                self._serve(batch)
        except BaseException as error:  # the thread's outermost loop: nobody else can report it
            LOGGER.critical("the compute thread has ended", exc_info=error)
            self._end("The engine has stopped.")
        for entry in self._running:
            entry.submission.finish(EngineDeadError("The engine has stopped."))

    def _take(self) -> list[_Entry[ItemT, ResultT]]:
        """Wait for work and form a batch; an empty one means that the batcher has ended."""
        with self._changed:
            while not self._turns and self._ended is None:
                self._changed.wait()
            batch = self._batch(self._limits.room(self._drain_rate))
            self._queued_cost -= sum(entry.cost for entry in batch)
            self._running = batch
        return batch

    def _batch(self, room: int) -> list[_Entry[ItemT, ResultT]]:
        """One item after another from the submissions whose turn it is, up to `room`."""
        held_back, turns = self._split_turns(room)
        batch: list[_Entry[ItemT, ResultT]] = []
        while turns and len(batch) < self._limits.batch_items:
            if batch and turns[0].next_cost > room:
                break
            room -= turns[0].next_cost
            batch.append(turns[0].take())
            if turns[0].exhausted:
                turns.popleft()
            else:
                turns.rotate(-1)
        self._turns = deque((*held_back, *turns))
        return batch

    def _split_turns(
        self, room: int
    ) -> tuple[
        list[_Submission[ItemT, ResultT]],
        deque[_Submission[ItemT, ResultT]],
    ]:
        """Who is held back for one batch, and who takes part in it."""
        large = [s for s in self._turns if s.waiting_cost > room]
        self._held_back = not self._held_back and 0 < len(large) < len(self._turns)
        if not self._held_back:
            return [], deque(self._turns)
        return large, deque(s for s in self._turns if s.waiting_cost <= room)

    def _serve(self, batch: list[_Entry[ItemT, ResultT]]) -> None:
        cost = sum(entry.cost for entry in batch)
        waited_s = _longest_wait(batch)
        self._thread.begin(cost)
        results = self._attempt(batch)
        if isinstance(results, ModelError):
            results = [results] if len(batch) == 1 else [self._alone(entry) for entry in batch]
        seconds = self._thread.end()
        self._note(BatchStats(len(batch), cost, seconds, waited_s, take_padding()))
        self._running = []
        for entry, result in zip(batch, results, strict=True):
            entry.submission.settle(entry.index, result)

    def _attempt(
        self, batch: list[_Entry[ItemT, ResultT]]
    ) -> Sequence[ResultT | ModelError] | ModelError:
        try:
            results = self._compute([entry.item for entry in batch])
        except EngineDeadError:
            raise
        except ModelError as error:
            return error
        except MemoryError:
            LOGGER.exception("no memory for a batch of %d items", len(batch))
            return OutOfMemoryError("There is not enough memory for this input now.")
        except Exception:  # a native library may raise anything; the client learns no details
            LOGGER.exception("a batch of %d items failed", len(batch))
            return ModelError("The model failed on this input.")
        if len(results) != len(batch):
            LOGGER.error("%d results for a batch of %d items", len(results), len(batch))
            return ModelError("The model failed on this input.")
        return results

    def _alone(self, entry: _Entry[ItemT, ResultT]) -> ResultT | ModelError:
        if entry.submission.future.done():
            return ModelError("cancelled")
        self._thread.tick()
        results = self._attempt([entry])
        return results if isinstance(results, ModelError) else results[0]

    def _note(self, stats: BatchStats) -> None:
        rate = stats.cost / max(stats.seconds, 1e-6)
        previous = self._drain_rate or rate
        self._drain_rate = previous + RATE_SMOOTHING * (rate - previous)
        if self._on_batch is not None:
            self._on_batch(stats)
