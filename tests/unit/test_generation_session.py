"""The calls of one ingress: whichever stream brings deltas, each call gets its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from deployments.ingress.generation_session import GenerationSession
from models.errors import EngineDeadError, InputTooLongError, ReplicaLostError
from models.types.common import Usage
from models.types.generation import (
    ChoiceDelta,
    Delivery,
    GenerationRequest,
    SamplingParams,
    TextDelta,
    TextPrompt,
)

WAIT_S = 60.0
REQUEST = GenerationRequest(TextPrompt("x"), SamplingParams())
request_context: ContextVar[str] = ContextVar("request", default="none")


class Streams:
    """Every `generate` call's stream, fed by the test. An exception ends a stream, None too."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[Any]] = {}
        self.begun: dict[str, Callable[[], bool]] = {}
        self.broadcasts: list[tuple[str, tuple[Any, ...]]] = []
        self.contexts: list[str] = []

    async def stream(
        self, method: str, *args: Any, begun: Callable[[], bool]
    ) -> AsyncGenerator[Any]:
        _session, call_id, _model, _requests = args
        self.contexts.append(request_context.get())
        self.begun[call_id] = begun
        queue = self.queues[call_id] = asyncio.Queue()
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    async def broadcast(self, method: str, *args: Any) -> list[Any]:
        self.broadcasts.append((method, args))
        return []

    async def call(self, method: str, *args: Any) -> Any:
        raise AssertionError

    call_once = call


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def session(streams: Streams) -> GenerationSession:
    return GenerationSession(streams)


def delivery(call_id: str, text: str, *, last: bool = False) -> Delivery:
    reason: Any = "stop" if last else None
    delta = TextDelta(text, finish_reason=reason, usage=Usage(1, 1) if last else None)
    return Delivery(call_id, (ChoiceDelta(0, delta),))


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def take(call: Any) -> str:
    async with asyncio.timeout(WAIT_S):
        return "".join(item.delta.text for item in await call.take())


async def test_one_stream_brings_the_deltas_of_two_calls(
    streams: Streams, session: GenerationSession
) -> None:
    with session.call("m", [REQUEST]) as one, session.call("m", [REQUEST]) as two:
        await settle()
        carrier = streams.queues[one.id]
        carrier.put_nowait([])
        carrier.put_nowait([delivery(one.id, "a"), delivery(two.id, "b")])
        assert (await take(one), await take(two)) == ("a", "b")
        streams.queues[two.id].put_nowait(None)  # its own stream may end before its last delta
        carrier.put_nowait([delivery(one.id, "", last=True)])
        carrier.put_nowait([delivery(two.id, "c", last=True)])
        assert await take(two) == "c"
        assert two.finished
        await take(one)
        carrier.put_nowait(None)
        await settle()
    assert not streams.broadcasts


async def test_a_call_that_is_left_is_cancelled_but_goes_on_carrying(
    streams: Streams, session: GenerationSession
) -> None:
    with session.call("m", [REQUEST]) as other:
        with session.call("m", [REQUEST]) as left:
            await settle()
            streams.queues[left.id].put_nowait([])
        await settle()
        assert ("cancel", (left.id,)) in streams.broadcasts
        streams.queues[left.id].put_nowait([delivery(other.id, "still here", last=True)])
        assert await take(other) == "still here"


async def test_a_call_that_is_left_while_it_waits_is_cancelled_once_it_is_accepted(
    streams: Streams, session: GenerationSession
) -> None:
    with session.call("m", [REQUEST]) as call:
        await settle()
    await settle()
    streams.broadcasts.clear()  # nobody knew the call yet
    streams.queues[call.id].put_nowait([])
    await settle()
    assert streams.broadcasts == [("cancel", (call.id,))]


async def test_what_a_stream_raises_ends_its_call_and_cancels_nothing(
    streams: Streams, session: GenerationSession
) -> None:
    with session.call("m", [REQUEST]) as call, session.call("m", [REQUEST]) as other:
        await settle()
        streams.queues[call.id].put_nowait(InputTooLongError(9, 5, "messages"))
        with pytest.raises(InputTooLongError):
            await call.take()
        streams.queues[other.id].put_nowait([delivery(other.id, "fine", last=True)])
        assert await take(other) == "fine"
    assert not streams.broadcasts


async def test_an_error_that_is_delivered_comes_after_the_text(
    streams: Streams, session: GenerationSession
) -> None:
    with session.call("m", [REQUEST]) as call:
        await settle()
        failed = Delivery(call.id, delivery(call.id, "a").deltas, EngineDeadError("gone"))
        streams.queues[call.id].put_nowait([failed])
        assert await take(call) == "a"
        with pytest.raises(EngineDeadError):
            await call.take()


async def test_a_call_whose_last_deltas_were_lost_with_their_carrier_fails(
    streams: Streams, session: GenerationSession
) -> None:
    with session.call("m", [REQUEST]) as carrier, session.call("m", [REQUEST]) as waiting:
        await settle()
        streams.queues[waiting.id].put_nowait(None)
        await settle()
        streams.queues[carrier.id].put_nowait(ReplicaLostError("died"))
        with pytest.raises(ReplicaLostError):
            await waiting.take()
        with pytest.raises(ReplicaLostError):
            await carrier.take()


async def test_a_refused_call_says_nothing_of_those_that_wait_for_their_last_deltas(
    streams: Streams, session: GenerationSession
) -> None:
    with (
        session.call("m", [REQUEST]) as carrier,
        session.call("m", [REQUEST]) as waiting,
        session.call("m", [REQUEST]) as refused,
    ):
        await settle()
        streams.queues[waiting.id].put_nowait(None)  # before what carries its last deltas
        await settle()
        streams.queues[refused.id].put_nowait(InputTooLongError(9, 5, "messages"))
        with pytest.raises(InputTooLongError):
            await refused.take()
        await settle()
        streams.queues[carrier.id].put_nowait([delivery(waiting.id, "all of it", last=True)])
        assert await take(waiting) == "all of it"


async def test_after_a_refused_call_nothing_is_said_of_it_to_those_that_are_lost(
    streams: Streams, session: GenerationSession
) -> None:
    with session.call("m", [REQUEST]) as lost, session.call("m", [REQUEST]) as refused:
        await settle()
        streams.queues[lost.id].put_nowait(None)
        await settle()
        streams.queues[refused.id].put_nowait(InputTooLongError(9, 5, "messages"))
        with pytest.raises(EngineDeadError):
            await lost.take()


async def test_streams_that_end_without_the_text_fail_instead_of_hanging(
    streams: Streams, session: GenerationSession
) -> None:
    with session.call("m", [REQUEST]) as call:
        await settle()
        streams.queues[call.id].put_nowait(None)
        with pytest.raises(EngineDeadError):
            async with asyncio.timeout(WAIT_S):
                await call.take()


async def test_a_call_has_begun_once_a_part_of_it_has_arrived(
    streams: Streams, session: GenerationSession
) -> None:
    with session.call("m", [REQUEST]) as call:
        await settle()
        streams.queues[call.id].put_nowait([])
        await settle()
        assert not streams.begun[call.id]()
        streams.queues[call.id].put_nowait([delivery(call.id, "a")])
        await take(call)
        assert streams.begun[call.id]()


async def test_streams_do_not_run_in_the_context_of_a_request(
    streams: Streams, session: GenerationSession
) -> None:
    request_context.set("a request")
    with session.call("m", [REQUEST]):
        await settle()
        assert streams.contexts == ["none"]
