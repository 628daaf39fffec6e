"""Deltas cross from the engine's thread to the event loop, grouped and in order."""

from __future__ import annotations

import asyncio
import threading

import pytest

from deployments.delta_streams import DeltaStreams
from models.errors import EngineDeadError
from models.types import TextDelta, Usage

END = TextDelta("", finish_reason="stop", usage=Usage(1, 2))


async def test_deltas_of_waiting_steps_are_taken_together_in_order() -> None:
    streams = DeltaStreams()
    stream = streams.open(["r"])
    thread = threading.Thread(
        target=lambda: [streams.listen([("r", TextDelta(text))]) for text in "abc"]
    )
    thread.start()
    thread.join()
    await asyncio.sleep(0)
    assert [item.delta.text for item in await stream.take()] == ["a", "b", "c"]
    assert not stream.finished


async def test_choices_are_numbered_and_all_must_end() -> None:
    streams = DeltaStreams()
    stream = streams.open(["first", "second"])
    streams.listen([("second", TextDelta("x")), ("first", END)])
    await asyncio.sleep(0)
    assert [(item.index, item.delta.text) for item in await stream.take()] == [(1, "x"), (0, "")]
    assert not stream.finished
    streams.listen([("second", END)])
    await asyncio.sleep(0)
    assert not stream.finished
    await stream.take()
    assert stream.finished


async def test_an_error_comes_after_what_was_generated_before_it() -> None:
    streams = DeltaStreams()
    stream = streams.open(["r"])
    streams.listen([("r", TextDelta("a"))])
    streams.listen([("r", EngineDeadError("gone"))])
    await asyncio.sleep(0)
    assert [item.delta.text for item in await stream.take()] == ["a"]
    with pytest.raises(EngineDeadError):
        await stream.take()


async def test_closed_requests_are_forgotten() -> None:
    streams = DeltaStreams()
    streams.open(["r"])
    streams.close(["r"])
    streams.listen([("r", TextDelta("late")), ("unknown", TextDelta("x"))])
    await asyncio.sleep(0)
    assert len(streams) == 0
