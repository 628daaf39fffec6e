"""Dynamic batching for models that answer many clients' requests in shared batches.

One compute thread takes whatever waits when it is free: at once when idle, and all that has
accumulated while it was busy otherwise. There is no timer: a fixed wait costs latency when idle and
cuts what accumulates into small batches when busy.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from models.compute_thread import ComputeThread
from models.drain_rate import DrainRate
from models.errors import EngineDeadError, ModelError, OutOfMemoryError, OverloadedError
from models.padding import take_padding
from models.submissions import Entry, Submission, Turns, longest_wait

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

LOGGER = logging.getLogger(__name__)
RATE_HALF_LIFE_S = 1.0
"""Of computing: what batches are made of changes faster than a queue."""
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
        self._turns: Turns[ItemT, ResultT] = Turns()
        self._running: list[Entry[ItemT, ResultT]] = []
        self._rate = DrainRate(half_life_s=RATE_HALF_LIFE_S)
        self._ended: str | None = None
        self._thread = ComputeThread(self._run, name, limits.unit_seconds)
        self._thread.start()

    @property
    def queued_cost(self) -> int:
        """Cost units that wait, without the batch being computed."""
        return self._turns.cost

    @property
    def alive(self) -> bool:
        return self._ended is None

    def submit(self, items: Sequence[ItemT]) -> Future[list[ResultT | ModelError]]:
        """Queue items; the future's list has their results in order.

        Cancelling the future drops the items that have not been taken into a batch. Raises
        OverloadedError when the queue is full, EngineDeadError when the thread has ended.
        """
        submission: Submission[ItemT, ResultT] = Submission(items, [self._cost(i) for i in items])
        with self._changed:
            self.check_room(submission.waiting_cost)
            if items:
                self._turns.add(submission)
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
        queued = self._turns.cost + elsewhere
        if queued and queued + cost > self._limits.queued_cost:
            wait = self._rate.retry_after(self._turns.cost)
            raise OverloadedError("Too many requests are waiting for this model.", wait)

    def close(self) -> None:
        """End the thread after the batch in hand; whatever waits gets an EngineDeadError."""
        self._end("The engine has been closed.")
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _drop(self, submission: Submission[ItemT, ResultT]) -> None:
        if not submission.future.cancelled():
            return
        with self._changed:
            self._turns.drop(submission)

    def _end(self, reason: str) -> None:
        with self._changed:
            self._ended = self._ended or reason
            orphans = self._turns.drop_all()
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

    def _take(self) -> list[Entry[ItemT, ResultT]]:
        """Wait for work and form a batch; an empty one means that the batcher has ended."""
        with self._changed:
            while not self._turns and self._ended is None:
                self._changed.wait()
            room = self._limits.room(self._rate.value)
            self._running = self._turns.take(room, self._limits.batch_items)
        return self._running

    def _serve(self, batch: list[Entry[ItemT, ResultT]]) -> None:
        cost = sum(entry.cost for entry in batch)
        waited_s = longest_wait(batch)
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
        self, batch: list[Entry[ItemT, ResultT]]
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

    def _alone(self, entry: Entry[ItemT, ResultT]) -> ResultT | ModelError:
        if entry.submission.future.done():
            return ModelError("cancelled")
        self._thread.tick()
        results = self._attempt([entry])
        return results if isinstance(results, ModelError) else results[0]

    def _note(self, stats: BatchStats) -> None:
        self._rate.took(stats.cost, stats.seconds)
        if self._on_batch is not None:
            self._on_batch(stats)
