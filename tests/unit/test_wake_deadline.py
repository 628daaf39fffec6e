"""A request waits for a task to wake, but not for ever."""

from __future__ import annotations

import asyncio

import pytest

from deployments.handles.wake_deadline import WakeDeadline
from models.errors import LoadTimeoutError


class Task:
    def __init__(self, replicas: int = 0) -> None:
        self.replicas = replicas
        self.asked = asyncio.Event()

    async def running(self) -> int:
        self.asked.set()
        return self.replicas


async def test_a_task_that_does_not_wake_is_an_error_to_try_again_after() -> None:
    wake = WakeDeadline("embedding", Task().running, 0.01)
    with pytest.raises(LoadTimeoutError, match="No replica for embedding has started") as caught:
        await wake.first(asyncio.Event().wait())
    assert caught.value.retry_after > 0


async def test_a_running_replica_is_waited_for() -> None:
    task, answer = Task(replicas=1), asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(WakeDeadline("embedding", task.running, 0.01).first(answer))
    await asyncio.wait_for(task.asked.wait(), 60)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    answer.set_result("vectors")
    assert await waiting == "vectors"


async def test_an_answer_in_time_asks_nobody() -> None:
    task = Task()

    async def answer() -> str:
        return "vectors"

    assert await WakeDeadline("embedding", task.running, 0.01).first(answer()) == "vectors"
    await asyncio.sleep(0.03)
    assert not task.asked.is_set()


async def test_an_answer_that_comes_while_we_ask_is_the_answer() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def running() -> int:
        begun.set()
        await may_end.wait()
        return 0

    answer = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(WakeDeadline("embedding", running, 0.01).first(answer))
    await asyncio.wait_for(begun.wait(), 60)
    answer.set_result("vectors")
    assert await waiting == "vectors"
    may_end.set()
    await asyncio.sleep(0.01)


async def test_failures_of_the_call_are_its_own() -> None:
    async def answer() -> str:
        raise TimeoutError("of the call")

    with pytest.raises(TimeoutError, match="of the call"):
        await WakeDeadline("embedding", Task().running, 5).first(answer())


async def test_a_replica_that_ends_after_the_first_look_is_missed_at_the_next() -> None:
    replicas = iter((1, 1, 0))

    async def running() -> int:
        return next(replicas)

    wake = WakeDeadline("embedding", running, 0.01)
    with pytest.raises(LoadTimeoutError):
        await asyncio.wait_for(wake.first(asyncio.Event().wait()), 60)


async def test_a_look_that_fails_is_logged_and_repeated(caplog: pytest.LogCaptureFixture) -> None:
    looks = iter((RuntimeError("no controller"), None))

    async def running() -> int:
        if error := next(looks):
            raise error
        return 0

    wake = WakeDeadline("embedding", running, 0.01)
    with pytest.raises(LoadTimeoutError):
        await asyncio.wait_for(wake.first(asyncio.Event().wait()), 60)
    assert "no controller" in caplog.text
