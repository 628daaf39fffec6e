"""When a spare process is started, with a pool that only counts."""

from __future__ import annotations

import asyncio
import threading

import pytest

from deployments.spare_process import CHECKS, PAUSE_CHECKS, SpareProcess


class Pool:
    """Its process is there from being started until `take`."""

    def __init__(self) -> None:
        self.started = 0
        self.spare = False
        self.failure: Exception | None = None

    def has_spare(self) -> bool:
        if self.failure:
            raise self.failure
        return self.spare

    def start_spare(self) -> None:
        self.started += 1
        self.spare = True

    def take(self) -> None:
        self.spare = False


def pass_looks(spare: SpareProcess, looks: int) -> None:
    async def check() -> None:
        for _ in range(looks):
            for _ in range(CHECKS):
                spare.check()
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

    asyncio.run(check())


def test_one_is_started_after_it_was_missed_twice() -> None:
    pool = Pool()
    spare = SpareProcess(pool)
    pass_looks(spare, 1)
    assert pool.started == 0
    pass_looks(spare, 5)
    assert pool.started == 1


def test_what_a_replica_took_is_replaced() -> None:
    pool = Pool()
    spare = SpareProcess(pool)
    pass_looks(spare, 2)
    pool.take()
    pass_looks(spare, 1)
    assert pool.started == 1, "the replica may still be loading"
    pass_looks(spare, 1)
    assert pool.started == 2


def test_one_that_is_still_starting_is_not_started_again_at_once() -> None:
    pool = Pool()
    spare = SpareProcess(pool)
    pass_looks(spare, 2)
    pool.take()  # as if it were not listed yet
    pass_looks(spare, 1)
    pool.spare = True
    pass_looks(spare, 5)
    assert pool.started == 1


def test_a_failure_is_told_once_and_looked_past_later(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool()
    pool.failure = AttributeError("another Ray")
    spare = SpareProcess(pool)
    pass_looks(spare, 1 + PAUSE_CHECKS // CHECKS)
    assert len(caplog.records) == 1
    pool.failure = None
    pass_looks(spare, 5)
    assert pool.started == 0
    pass_looks(spare, PAUSE_CHECKS // CHECKS)
    assert pool.started == 1


def test_a_look_that_hangs_keeps_nobody_waiting() -> None:
    class Hanging(Pool):
        looks = 0
        over = threading.Event()

        def has_spare(self) -> bool:
            self.looks += 1
            return self.over.wait(60)

    pool = Hanging()

    async def check() -> None:
        spare = SpareProcess(pool)
        for _ in range(5 * CHECKS):
            spare.check()
            await asyncio.sleep(0)
        assert pool.looks <= 1
        pool.over.set()

    asyncio.run(check())
    assert pool.looks == 1
