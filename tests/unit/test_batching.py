"""The dynamic batcher, driven by events: no test sleeps or asserts a duration."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future

import pytest

from models.batching import BatchLimits, BatchStats, DynamicBatcher
from models.errors import EngineDeadError, InvalidInputError, ModelError, OverloadedError

WAIT = 30.0
ROOMY = BatchLimits(batch_cost=1000, batch_items=1000, queued_cost=100_000)


class Doubler:
    """Doubles numbers, one gate per batch: the test decides when a batch may go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.errors: dict[int, BaseException] = {}

    def __call__(self, items: list[int]) -> Sequence[int | ModelError]:
        self.batches.append(items)
        self.entered.release()
        assert self.gate.acquire(timeout=WAIT)
        for item in items:
            if item in self.errors:
                raise self.errors[item]
        return [2 * item for item in items]

    def allow(self, batches: int = 1000) -> None:
        self.gate.release(batches)

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=WAIT)


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


Batcher = DynamicBatcher[int, int]


@pytest.fixture
def batcher(doubler: Doubler) -> Iterator[Batcher]:
    yield from _running(doubler, ROOMY)


def _running(doubler: Doubler, limits: BatchLimits, **options: object) -> Iterator[Batcher]:
    batcher = Batcher(doubler, abs, limits, **options)  # type: ignore[arg-type]
    yield batcher
    doubler.allow()
    batcher.close()


def _hold(batcher: Batcher, doubler: Doubler) -> Future[list[int | ModelError]]:
    """Make the compute thread busy with a batch of its own."""
    future = batcher.submit([1])
    doubler.wait_entered()
    return future


def test_results_come_in_order(batcher: Batcher, doubler: Doubler) -> None:
    doubler.allow()
    assert batcher.submit([3, 1, 2]).result(WAIT) == [6, 2, 4]


def test_an_empty_submission_is_answered_at_once(batcher: Batcher) -> None:
    assert batcher.submit([]).result(WAIT) == []


def test_an_idle_batcher_dispatches_at_once(batcher: Batcher, doubler: Doubler) -> None:
    batcher.submit([7])
    doubler.wait_entered()
    assert doubler.batches == [[7]]


def test_work_accumulates_while_busy(batcher: Batcher, doubler: Doubler) -> None:
    _hold(batcher, doubler)
    futures = [batcher.submit([n]) for n in (2, 3, 4)]
    doubler.allow()
    assert [f.result(WAIT) for f in futures] == [[4], [6], [8]]
    assert doubler.batches == [[1], [2, 3, 4]]


def test_a_batch_keeps_to_the_cost_budget(doubler: Doubler) -> None:
    for batcher in _running(doubler, BatchLimits(10, 1000, 10_000)):
        _hold(batcher, doubler)
        future = batcher.submit([4, 5, 3, 2, 5])
        doubler.allow()
        future.result(WAIT)
    assert doubler.batches[1:] == [[4, 5], [3, 2, 5]]


@pytest.mark.parametrize(
    ("seconds", "rate", "room"),
    [
        (None, 50.0, 1600),
        (0.5, 0.0, 100),  # nothing is known yet
        (0.5, 50.0, 100),
        (0.5, 1000.0, 500),
        (0.5, 1e9, 1600),
    ],
)
def test_the_budget_follows_what_the_model_does_in_a_time(
    seconds: float | None, rate: float, room: int
) -> None:
    assert BatchLimits(1600, 10, 10_000, seconds).room(rate) == room


def test_the_first_batch_is_small_where_a_time_is_wanted(doubler: Doubler) -> None:
    limits = BatchLimits(batch_cost=160, batch_items=100, queued_cost=1000, batch_seconds=6000.0)
    for batcher in _running(doubler, limits):
        batcher.submit([2] * 100)
        doubler.wait_entered()
        doubler.allow(1)
        doubler.wait_entered()  # done in no time: as much as is allowed
        assert list(map(len, doubler.batches)) == [5, 80]


def test_a_batch_keeps_to_the_item_cap(doubler: Doubler) -> None:
    for batcher in _running(doubler, BatchLimits(1000, 2, 10_000)):
        _hold(batcher, doubler)
        future = batcher.submit([4, 5, 3])
        doubler.allow()
        future.result(WAIT)
    assert doubler.batches[1:] == [[4, 5], [3]]


def test_an_item_above_the_budget_goes_alone(doubler: Doubler) -> None:
    for batcher in _running(doubler, BatchLimits(10, 1000, 10_000)):
        _hold(batcher, doubler)
        future = batcher.submit([3, 50, 4])
        doubler.allow()
        assert future.result(WAIT) == [6, 100, 8]
    assert doubler.batches[1:] == [[3], [50], [4]]


def test_submissions_take_turns(doubler: Doubler) -> None:
    for batcher in _running(doubler, BatchLimits(1000, 4, 10_000)):
        _hold(batcher, doubler)
        batcher.submit(list(range(10, 19)))
        batcher.submit([20, 21])
        query = batcher.submit([30])
        doubler.allow(2)
        assert query.result(WAIT) == [60]
        assert doubler.batches[1] == [10, 20, 30, 11]


def test_a_query_joins_the_next_batch_of_a_running_job(doubler: Doubler) -> None:
    for batcher in _running(doubler, BatchLimits(1000, 4, 10_000)):
        job = batcher.submit(list(range(100, 130)))
        doubler.wait_entered()
        query = batcher.submit([7])
        doubler.allow(2)
        assert query.result(WAIT) == [14]
        assert not job.done()
        doubler.allow()
        assert job.result(WAIT) == [2 * n for n in range(100, 130)]


def test_every_other_batch_is_for_those_that_fit_into_one(doubler: Doubler) -> None:
    for batcher in _running(doubler, BatchLimits(10, 1000, 10_000)):
        _hold(batcher, doubler)
        job = batcher.submit([4, 3, 3, 4, 3, 3])
        queries = [batcher.submit([2]) for _ in range(6)]
        doubler.allow()
        job.result(WAIT)
        assert [query.result(WAIT) for query in queries] == [[4]] * 6
    assert doubler.batches[1:] == [[2] * 5, [4, 2, 3], [3, 4, 3], [3]]


def test_a_job_alone_is_not_held_back(doubler: Doubler) -> None:
    for batcher in _running(doubler, BatchLimits(10, 1000, 10_000)):
        _hold(batcher, doubler)
        jobs = [batcher.submit([11] * 3), batcher.submit([12] * 3)]
        doubler.allow()
        for job in jobs:
            job.result(WAIT)
    assert doubler.batches[1:] == [[11], [12]] * 3


def test_a_large_item_is_not_passed_over_for_ever(doubler: Doubler) -> None:
    for batcher in _running(doubler, BatchLimits(10, 1000, 10_000)):
        _hold(batcher, doubler)
        batcher.submit([3, 4])
        large = batcher.submit([9])
        batcher.submit([2, 2])
        doubler.allow()
        large.result(WAIT)
    assert doubler.batches[1] == [3]
    assert doubler.batches[2] == [9]


def test_cancelling_drops_what_waits(batcher: Batcher, doubler: Doubler) -> None:
    _hold(batcher, doubler)
    dropped = batcher.submit([50, 51])
    kept = batcher.submit([2])
    assert dropped.cancel()
    assert batcher.queued_cost == 2
    doubler.allow()
    assert kept.result(WAIT) == [4]
    assert doubler.batches == [[1], [2]]
    with pytest.raises(CancelledError):
        dropped.result(WAIT)


def test_cancelling_a_running_job_drops_the_rest(doubler: Doubler) -> None:
    for batcher in _running(doubler, BatchLimits(1000, 2, 10_000)):
        job = batcher.submit([10, 11, 12, 13])
        doubler.wait_entered()
        assert job.cancel()
        assert batcher.queued_cost == 0
        doubler.allow()
        assert batcher.submit([5]).result(WAIT) == [10]
    assert doubler.batches == [[10, 11], [5]]


def test_a_full_queue_refuses(doubler: Doubler) -> None:
    for batcher in _running(doubler, BatchLimits(1000, 1000, 20)):
        _hold(batcher, doubler)
        batcher.submit([15])
        batcher.submit([5])
        with pytest.raises(OverloadedError) as raised:
            batcher.submit([1])
        assert raised.value.retry_after >= 1
        assert batcher.queued_cost == 20


def test_an_empty_queue_takes_a_submission_of_any_size(doubler: Doubler) -> None:
    for batcher in _running(doubler, BatchLimits(1000, 1000, 20)):
        _hold(batcher, doubler)
        doubler.allow()
        assert batcher.submit([500]).result(WAIT) == [1000]


def test_retry_after_follows_the_drain_rate(
    doubler: Doubler, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(float(n) for n in range(0, 1000, 10))
    monkeypatch.setattr("models.compute_thread.time.monotonic", lambda: next(clock))
    for batcher in _running(doubler, BatchLimits(1000, 1000, 100)):
        doubler.allow(1)
        batcher.submit([50]).result(WAIT)  # 50 units in 10 seconds
        doubler.wait_entered()
        _hold(batcher, doubler)
        batcher.submit([100])
        with pytest.raises(OverloadedError) as raised:
            batcher.submit([1])
        assert raised.value.retry_after == pytest.approx(20)


def test_only_the_poison_item_fails(
    batcher: Batcher, doubler: Doubler, caplog: pytest.LogCaptureFixture
) -> None:
    doubler.errors[3] = ValueError("secret detail")
    _hold(batcher, doubler)
    mixed, other = batcher.submit([2, 3]), batcher.submit([4])
    doubler.allow()
    with caplog.at_level(logging.CRITICAL):
        good, bad = mixed.result(WAIT)
    assert good == 4
    assert isinstance(bad, ModelError)
    assert "secret" not in bad.message
    assert other.result(WAIT) == [8]


def test_an_items_own_error_keeps_its_type(batcher: Batcher, doubler: Doubler) -> None:
    doubler.errors[3] = InvalidInputError("three is odd", "input")
    _hold(batcher, doubler)
    future = batcher.submit([2, 3])
    doubler.allow()
    good, bad = future.result(WAIT)
    assert good == 4
    assert isinstance(bad, InvalidInputError)


def test_cancelled_items_of_a_failed_batch_do_not_run_again(
    batcher: Batcher, doubler: Doubler, caplog: pytest.LogCaptureFixture
) -> None:
    doubler.errors[3] = ValueError()
    _hold(batcher, doubler)
    gone, kept = batcher.submit([3]), batcher.submit([4])
    doubler.allow(1)
    doubler.wait_entered()
    assert gone.cancel()
    with caplog.at_level(logging.CRITICAL):
        doubler.allow()
        assert kept.result(WAIT) == [8]
    assert doubler.batches == [[1], [3, 4], [4]]


def test_a_wrong_number_of_results_fails_the_items(caplog: pytest.LogCaptureFixture) -> None:
    batcher = Batcher(lambda _: [], abs, ROOMY)
    with caplog.at_level(logging.CRITICAL):
        (result,) = batcher.submit([1]).result(WAIT)
    assert isinstance(result, ModelError)
    batcher.close()


class Abort(BaseException):
    """What no `except Exception` catches."""


@pytest.mark.parametrize("fatal", [EngineDeadError("device lost"), Abort()])
def test_a_dead_thread_fails_everybody(
    batcher: Batcher,
    doubler: Doubler,
    caplog: pytest.LogCaptureFixture,
    fatal: BaseException,
) -> None:
    doubler.errors[1] = fatal
    running = _hold(batcher, doubler)
    waiting = batcher.submit([2])
    with caplog.at_level(logging.CRITICAL):
        doubler.allow()
        for future in (running, waiting):
            with pytest.raises(EngineDeadError):
                future.result(WAIT)
    assert not batcher.alive
    with pytest.raises(EngineDeadError):
        batcher.submit([3])


def test_close_finishes_the_batch_in_hand(doubler: Doubler) -> None:
    batcher = Batcher(doubler, abs, ROOMY)
    running = _hold(batcher, doubler)
    waiting = batcher.submit([2])
    closer = threading.Thread(target=batcher.close)
    closer.start()
    with pytest.raises(EngineDeadError):
        waiting.result(WAIT)
    doubler.allow()
    assert running.result(WAIT) == [2]
    closer.join(WAIT)
    assert not closer.is_alive()


def test_close_is_idempotent_and_refuses_later_work(doubler: Doubler) -> None:
    batcher = Batcher(doubler, abs, ROOMY)
    batcher.close()
    batcher.close()
    with pytest.raises(EngineDeadError):
        batcher.submit([1])


def test_close_from_a_callback_does_not_deadlock(doubler: Doubler) -> None:
    batcher = Batcher(doubler, abs, ROOMY)
    closed = threading.Event()
    future = batcher.submit([1])

    def close(_: object) -> None:
        batcher.close()
        closed.set()

    future.add_done_callback(close)
    doubler.allow()
    assert closed.wait(WAIT)


def test_stats_are_reported_per_batch(doubler: Doubler) -> None:
    seen: list[BatchStats] = []
    for batcher in _running(doubler, ROOMY, on_batch=seen.append):
        _hold(batcher, doubler)
        future = batcher.submit([2, 3])
        doubler.allow()
        future.result(WAIT)
    assert [(s.items, s.cost) for s in seen] == [(1, 1), (2, 5)]
    assert all(s.seconds >= 0 for s in seen)


def test_many_threads_get_their_own_answers(batcher: Batcher, doubler: Doubler) -> None:
    doubler.allow(10_000)
    answers: dict[int, object] = {}

    def client(base: int) -> None:
        numbers = [base + n for n in range(20)]
        answers[base] = batcher.submit(numbers).result(WAIT) == [2 * n for n in numbers]

    threads = [threading.Thread(target=client, args=(20 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert answers == {20 * n: True for n in range(8)}
