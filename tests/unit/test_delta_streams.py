"""Deltas cross from the engines' threads to the ingress: grouped, in order, in one stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from deployments.delta_streams import DeltaSession, DeltaStreams
from models.errors import EngineDeadError, ReplicaLostError
from models.types.common import Usage
from models.types.generation import Delivery, TextDelta

WAIT_S = 60.0
END = TextDelta("", finish_reason="stop", usage=Usage(1, 2))


def texts(deliveries: list[Delivery]) -> dict[str, str]:
    return {d.call_id: "".join(item.delta.text for item in d.deltas) for d in deliveries}


async def ready(items: AsyncGenerator[list[Delivery]]) -> list[Delivery]:
    async with asyncio.timeout(WAIT_S):
        return await anext(items)


async def dispatched() -> None:
    """Let what an engine thread has said reach its session."""
    await asyncio.sleep(0)


def carrying(session: DeltaSession) -> aclosing[AsyncGenerator[list[Delivery]]]:
    return aclosing(session.carry())


async def test_deltas_of_waiting_steps_travel_together_in_order() -> None:
    streams = DeltaStreams()
    session = streams.open("s", "call", ["r"])
    thread = threading.Thread(
        target=lambda: [streams.listen([("r", TextDelta(text))]) for text in "abc"]
    )
    thread.start()
    thread.join()
    await dispatched()
    async with carrying(session) as items:
        assert texts(await ready(items)) == {"call": "abc"}


async def test_one_stream_carries_all_calls_until_the_last_has_ended() -> None:
    streams = DeltaStreams()
    session = streams.open("s", "one", ["1"])
    streams.open("s", "two", ["2"])
    other = streams.open("other ingress", "three", ["3"])
    async with carrying(session) as items:
        streams.listen([("1", TextDelta("a")), ("2", TextDelta("b")), ("3", TextDelta("c"))])
        assert texts(await ready(items)) == {"one": "a", "two": "b"}
        streams.listen([("1", END)])
        assert texts(await ready(items)) == {"one": ""}
        assert "one" not in session
        streams.listen([("2", TextDelta("more")), ("2", END)])
        assert texts(await ready(items)) == {"two": "more"}
        assert [item async for item in items] == []
    assert not session.carried
    async with carrying(other) as items:
        assert texts(await ready(items)) == {"three": "c"}


async def test_choices_are_numbered_and_all_must_end() -> None:
    streams = DeltaStreams()
    session = streams.open("s", "call", ["first", "second"])
    async with carrying(session) as items:
        streams.listen([("second", TextDelta("x")), ("first", END)])
        [delivery] = await ready(items)
        assert [(d.index, d.delta.text) for d in delivery.deltas] == [(1, "x"), (0, "")]
        assert "call" in session
        streams.listen([("second", END)])
        await ready(items)
        assert "call" not in session


async def test_an_error_ends_its_call_only_and_comes_after_what_was_generated() -> None:
    streams = DeltaStreams()
    session = streams.open("s", "call", ["r"])
    streams.open("s", "other", ["o"])
    streams.listen([("r", TextDelta("a")), ("r", EngineDeadError("gone"))])
    async with carrying(session) as items:
        [delivery] = await ready(items)
        assert [d.delta.text for d in delivery.deltas] == ["a"]
        assert isinstance(delivery.error, EngineDeadError)
        assert "call" not in session
        streams.listen([("o", TextDelta("b"))])
        assert texts(await ready(items)) == {"other": "b"}


async def test_a_silent_stream_ends_when_its_call_has_been_carried() -> None:
    streams = DeltaStreams()
    session = streams.open("s", "carrier", ["1"])
    streams.open("s", "silent", ["2"])
    ended = asyncio.create_task(session.ended("silent"))
    async with carrying(session) as items:
        streams.listen([("2", END)])
        await dispatched()
        assert not ended.done()
        await ready(items)
        await asyncio.wait_for(ended, WAIT_S)


async def test_calls_whose_carrier_has_gone_fail_instead_of_losing_text() -> None:
    streams = DeltaStreams()
    session = streams.open("s", "carrier", ["1"])
    streams.open("s", "silent", ["2"])
    ended = asyncio.create_task(session.ended("silent"))
    streams.listen([("1", TextDelta("a"))])
    async with carrying(session) as items:
        await ready(items)
    with pytest.raises(ReplicaLostError):
        await ended


async def test_a_cancelled_call_leaves_the_others() -> None:
    streams = DeltaStreams()
    session = streams.open("s", "one", ["1"])
    streams.open("s", "two", ["2"])
    streams.cancel("one")
    async with carrying(session) as items:
        streams.listen([("1", TextDelta("late")), ("2", TextDelta("b"))])
        assert texts(await ready(items)) == {"two": "b"}
        streams.cancel("two")
        assert [item async for item in items] == []


async def test_closed_calls_are_forgotten() -> None:
    streams = DeltaStreams()
    streams.open("s", "call", ["r"])
    streams.close("s", "call", ["r"])
    streams.listen([("r", TextDelta("late")), ("unknown", TextDelta("x"))])
    await dispatched()
    assert len(streams) == 0
    streams.close("s", "call", ["r"])
