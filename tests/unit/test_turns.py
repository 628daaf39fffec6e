"""One at a time, until the block ends or its turn is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from deployments.handles import turns
from deployments.handles.turns import Turns


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Work:
    """Blocks that say when they are in, and end when they are told to."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.entered: list[str] = []
        self.end: dict[str, asyncio.Event] = {}

    def start(self, name: str, until: Callable[[], bool] | None = None) -> asyncio.Task[None]:
        self.end[name] = asyncio.Event()
        return asyncio.create_task(self._run(name, until))

    async def _run(self, name: str, until: Callable[[], bool] | None) -> None:
        async with self.turns.turn(until):
            self.entered.append(name)
            await self.end[name].wait()


async def test_one_at_a_time_in_order() -> None:
    work = Work()
    tasks = [work.start(name) for name in "abc"]
    await settle()
    assert work.entered == ["a"]
    work.end["a"].set()
    await settle()
    assert work.entered == ["a", "b"]
    work.end["b"].set()
    work.end["c"].set()
    await asyncio.gather(*tasks)


async def test_who_leaves_gives_the_turn_on() -> None:
    work = Work()
    holder, waiter, last = (work.start(name) for name in "abc")
    await settle()
    waiter.cancel()
    holder.cancel()
    await settle()
    assert work.entered == ["a", "c"]
    work.end["c"].set()
    await last


async def test_a_turn_may_be_over_before_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOOK_S", 0)
    work, begun = Work(), asyncio.Event()
    first = work.start("a", begun.is_set)
    second = work.start("b")
    await settle()
    assert work.entered == ["a"]
    begun.set()
    await settle()
    assert work.entered == ["a", "b"]
    work.end["a"].set()
    await first
    third = work.start("c")
    await settle()
    assert work.entered == ["a", "b"]  # the end of "a" has not given the turn of "b" away
    work.end["b"].set()
    work.end["c"].set()
    await asyncio.gather(second, third)


async def test_a_turn_ends_at_the_latest_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_TURN_S", 0)
    work = Work()
    loading = work.start("a", lambda: False)
    second = work.start("b")
    await settle()
    assert work.entered == ["a", "b"]
    work.end["a"].set()
    work.end["b"].set()
    await asyncio.gather(loading, second)
