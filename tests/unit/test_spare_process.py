"""When a spare process is started, with a pool that only counts."""

from __future__ import annotations

import asyncio

import pytest

from deployments.spare_process import CHECKS, SpareProcess


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
        for _ in range(looks * CHECKS):
            await spare.check()

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


def test_a_failure_is_told_once_and_ends_the_looking(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool()
    pool.failure = AttributeError("another Ray")
    spare = SpareProcess(pool)
    pass_looks(spare, 1)
    pool.failure = None
    pass_looks(spare, 5)
    assert pool.started == 0
    assert len(caplog.records) == 1
