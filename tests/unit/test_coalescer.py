"""Coalescing: lone requests leave at once, the rest gather while a call is in flight."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from config.settings import CoalescingSettings
from deployments.ingress.clients import embedding_size
from deployments.ingress.coalescer import Call, Calls, Coalescer
from models.drain_rate import DrainRate
from models.errors import (
    InvalidInputError,
    MessageTooLargeError,
    ModelError,
    OverloadedError,
    ReplicaLostError,
)
from models.types.texts import EmbeddingRequest
from tests.cached_models import Clock


class Replica:
    """Answers each shared call when told to."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gates: list[asyncio.Future[None]] = []
        self.cancelled = 0

    async def __call__(self, requests: list[str]) -> list[str | ModelError]:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.calls.append(requests)
        self.gates.append(gate)
        try:
            await gate
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [
            InvalidInputError("bad", "input") if text == "bad" else text.upper()
            for text in requests
        ]


@pytest.fixture
def replica() -> Replica:
    return Replica()


def coalescer(call: Call[str, str], **options: float) -> Coalescer[str, str]:
    settings = CoalescingSettings.model_validate({"max_request_chars": 10} | options)
    return Coalescer(Calls(call, call, call), len, settings)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_lone_request_leaves_at_once(replica: Replica) -> None:
    task = asyncio.create_task(coalescer(replica).submit("a"))
    await settle()
    assert replica.calls == [["a"]]
    replica.gates[0].set_result(None)
    assert await task == "A"


async def test_requests_gather_while_a_call_is_in_flight(replica: Replica) -> None:
    shared = coalescer(replica)
    tasks = [asyncio.create_task(shared.submit(text)) for text in "abcd"]
    await settle()
    assert replica.calls == [["a"]]
    replica.gates[0].set_result(None)
    await settle()
    assert replica.calls == [["a"], ["b", "c", "d"]]
    replica.gates[1].set_result(None)
    assert await asyncio.gather(*tasks) == ["A", "B", "C", "D"]


async def test_answers_are_handed_out_one_per_turn_after_the_next_call_has_left(
    replica: Replica,
) -> None:
    shared = coalescer(replica, max_requests=3)
    tasks = [asyncio.create_task(shared.submit(text)) for text in "abcde"]
    await settle()
    replica.gates[0].set_result(None)
    await settle()
    done = [0]
    replica.gates[1].set_result(None)
    while done[-1] < 3:
        await asyncio.sleep(0)
        done.append(sum(task.done() for task in tasks[1:4]))
        assert done[-1] - done[-2] <= 1
        assert not done[-1] or replica.calls[2:] == [["e"]]
    replica.gates[2].set_result(None)
    await asyncio.gather(*tasks)


async def test_what_ends_a_call_while_it_hands_out_ends_all_that_wait(replica: Replica) -> None:
    shared = coalescer(replica)
    tasks = [asyncio.create_task(shared.submit(text)) for text in "abcd"]
    await settle()
    handing_out = asyncio.all_tasks() - {*tasks, asyncio.current_task()}
    assert handing_out
    replica.gates[0].set_result(None)
    await settle()
    answering = asyncio.all_tasks() - {*tasks, asyncio.current_task()}
    replica.gates[1].set_result(None)
    while not tasks[1].done():
        await asyncio.sleep(0)
    for task in answering:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[:2] == ["A", "B"]
    assert isinstance(results[3], asyncio.CancelledError)


async def test_a_large_request_leaves_alone_and_at_once(replica: Replica) -> None:
    shared = coalescer(replica)
    small = asyncio.create_task(shared.submit("a"))
    await settle()
    large = asyncio.create_task(shared.submit("x" * 11))
    await settle()
    assert replica.calls == [["a"], ["x" * 11]]
    for gate in replica.gates:
        gate.set_result(None)
    assert await large == "X" * 11
    assert await small == "A"


async def test_shared_calls_are_bounded_in_requests_and_number(replica: Replica) -> None:
    shared = coalescer(replica, max_requests=2, max_in_flight=2)
    tasks = [asyncio.create_task(shared.submit(text)) for text in "abcdef"]
    await settle()
    assert replica.calls == [["a"], ["b"]]
    replica.gates[0].set_result(None)
    await settle()
    assert replica.calls[2:] == [["c", "d"]]
    replica.gates[1].set_result(None)
    await settle()
    assert replica.calls[3:] == [["e", "f"]]
    for gate in replica.gates[2:]:
        gate.set_result(None)
    await asyncio.gather(*tasks)


async def test_one_bad_request_fails_alone(replica: Replica) -> None:
    shared = coalescer(replica)
    tasks = [asyncio.create_task(shared.submit(text)) for text in ("a", "bad", "c")]
    await settle()
    replica.gates[0].set_result(None)
    await settle()
    replica.gates[1].set_result(None)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] == "A"
    assert results[2] == "C"
    assert isinstance(results[1], InvalidInputError)


@pytest.mark.parametrize("error", [OverloadedError("full"), RuntimeError("bug")])
async def test_a_failed_call_fails_all_its_requests_and_no_other(
    replica: Replica, error: Exception
) -> None:
    shared = coalescer(replica)
    first = asyncio.create_task(shared.submit("a"))
    await settle()
    second = asyncio.create_task(shared.submit("b"))
    await settle()
    replica.gates[0].set_exception(error)
    with pytest.raises(type(error)):
        await first
    await settle()
    replica.gates[1].set_result(None)
    assert await second == "B"


async def test_a_caller_that_leaves_the_queue_is_not_sent(replica: Replica) -> None:
    shared = coalescer(replica)
    first = asyncio.create_task(shared.submit("a"))
    await settle()
    gone = asyncio.create_task(shared.submit("gone"))
    stays = asyncio.create_task(shared.submit("b"))
    await settle()
    gone.cancel()
    replica.gates[0].set_result(None)
    await settle()
    assert replica.calls == [["a"], ["b"]]
    replica.gates[1].set_result(None)
    assert (await first, await stays) == ("A", "B")


async def test_a_call_is_cancelled_when_all_its_callers_have_gone(replica: Replica) -> None:
    shared = coalescer(replica)
    first = asyncio.create_task(shared.submit("a"))
    await settle()
    pair = [asyncio.create_task(shared.submit(text)) for text in "bc"]
    await settle()
    replica.gates[0].set_result(None)
    await first
    await settle()
    pair[0].cancel()
    await settle()
    assert replica.cancelled == 0
    pair[1].cancel()
    await settle()
    assert replica.cancelled == 1


async def test_a_shared_call_does_not_run_in_the_context_of_one_request(replica: Replica) -> None:
    """Serve cancels what was called in the context of a request whose client has gone."""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen = []

    async def call(requests: list[str]) -> list[str | ModelError]:
        seen.append(request.get())
        return await replica(requests)

    shared = coalescer(call)

    async def client(text: str) -> str:
        request.set(text)
        return await shared.submit(text)

    tasks = [asyncio.create_task(client(text)) for text in "ab"]
    await settle()
    replica.gates[0].set_result(None)
    await settle()
    replica.gates[1].set_result(None)
    assert await asyncio.gather(*tasks) == ["A", "B"]
    assert seen == ["none", "none"]


async def test_one_request_that_kills_replicas_fails_alone() -> None:
    lost: list[list[str]] = []

    async def call(requests: list[str]) -> list[str | ModelError]:
        await asyncio.sleep(0)
        if "killer" in requests:
            lost.append(requests)
            raise ReplicaLostError("died")
        return [text.upper() for text in requests]

    calls = Calls(alone=call, shared=call, again=call)
    shared = Coalescer(calls, len, CoalescingSettings(max_request_chars=10))
    texts = ("first", "a", "killer", "b")
    answers = await asyncio.gather(*map(shared.submit, texts), return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == ["FIRST", "A", "B"]
    assert isinstance(answers[2], ReplicaLostError)
    assert lost == [["a", "killer", "b"], ["killer"]]


async def test_a_defect_met_by_one_request_on_its_second_try_fails_it_alone() -> None:
    async def shared_call(requests: list[str]) -> list[str | ModelError]:
        await asyncio.sleep(0)
        if len(requests) > 1:
            raise ReplicaLostError("died")
        return [text.upper() for text in requests]

    async def call_again(requests: list[str]) -> list[str | ModelError]:
        if requests == ["bug"]:
            raise RuntimeError("bug")
        await settle()
        return [text.upper() for text in requests]

    calls = Calls(alone=shared_call, shared=shared_call, again=call_again)
    shared = Coalescer(calls, len, CoalescingSettings())
    texts = ("first", "a", "bug", "b")
    answers = await asyncio.gather(*map(shared.submit, texts), return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == ["FIRST", "A", "B"]
    assert isinstance(answers[2], RuntimeError)


async def test_what_is_too_large_together_goes_one_by_one() -> None:
    calls_made: list[list[str]] = []

    async def call(requests: list[str]) -> list[str | ModelError]:
        await asyncio.sleep(0)
        calls_made.append(requests)
        if len(requests) > 1 or requests == ["huge"]:
            raise MessageTooLargeError("too large")
        return [text.upper() for text in requests]

    shared = Coalescer(Calls(alone=call, shared=call, again=call), len, CoalescingSettings())
    texts = ("first", "a", "huge", "b")
    answers = await asyncio.gather(*map(shared.submit, texts), return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == ["FIRST", "A", "B"]
    assert isinstance(answers[2], MessageTooLargeError)
    assert calls_made[2:] == [["a"], ["huge"], ["b"]]


async def test_the_size_of_a_shared_call_is_bounded(replica: Replica) -> None:
    shared = coalescer(replica, max_call_chars=5)
    tasks = [asyncio.create_task(shared.submit(text)) for text in ("a", "bb", "ccc", "d", "e" * 9)]
    await settle()
    while not all(task.done() for task in tasks):
        replica.gates[-1].set_result(None)
        await settle()
    assert replica.calls == [["a"], ["bb", "ccc"], ["d"], ["e" * 9]]


async def test_large_requests_wait_while_as_many_as_allowed_are_in_flight(
    replica: Replica,
) -> None:
    shared = coalescer(replica, max_large_in_flight=2)
    tasks = [asyncio.create_task(shared.submit(letter * 11)) for letter in "abc"]
    await settle()
    assert [call[0][0] for call in replica.calls] == ["a", "b"]
    replica.gates[1].set_result(None)
    await settle()
    assert [call[0][0] for call in replica.calls] == ["a", "b", "c"]
    for gate in (replica.gates[0], replica.gates[2]):
        gate.set_result(None)
    await asyncio.gather(*tasks)


async def test_callers_take_turns_in_shared_calls(replica: Replica) -> None:
    shared = coalescer(replica, max_requests=2)
    first = asyncio.create_task(shared.submit("first", "flood"))
    await settle()
    flood = [asyncio.create_task(shared.submit(f"f{i}", "flood")) for i in range(4)]
    await settle()
    single = asyncio.create_task(shared.submit("single", "other"))
    await settle()
    replica.gates[0].set_result(None)
    await settle()
    assert replica.calls[1] == ["f0", "single"]
    while not all(task.done() for task in flood):
        replica.gates[-1].set_result(None)
        await settle()
    await asyncio.gather(first, single)


async def test_a_full_queue_refuses_at_once(replica: Replica) -> None:
    shared = coalescer(replica, max_waiting=1)
    tasks = [asyncio.create_task(shared.submit(text)) for text in "ab"]
    await settle()
    with pytest.raises(OverloadedError):
        await shared.submit("c")
    tasks[1].cancel()  # which gives its place back
    await settle()
    last = asyncio.create_task(shared.submit("d"))
    await settle()
    replica.gates[0].set_result(None)
    await settle()
    replica.gates[1].set_result(None)
    assert await last == "D"
    assert replica.calls == [["a"], ["d"]]


async def test_what_a_client_has_left_is_not_tried_again() -> None:
    again: list[list[str]] = []
    dying = asyncio.Event()

    async def shared_call(requests: list[str]) -> list[str | ModelError]:
        if len(requests) > 1:
            await dying.wait()
            raise ReplicaLostError("died")
        return [text.upper() for text in requests]

    async def call_again(requests: list[str]) -> list[str | ModelError]:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        again.append(requests)
        return [text.upper() for text in requests]

    calls = Calls(alone=shared_call, shared=shared_call, again=call_again)
    shared = Coalescer(calls, len, CoalescingSettings())
    first, stays, leaves = (asyncio.create_task(shared.submit(t)) for t in ("a", "b", "c"))
    await first
    await settle()
    dying.set()
    await asyncio.sleep(0)
    leaves.cancel()
    assert await stays == "B"
    assert again == [["b"]]


async def test_a_call_that_fails_tells_nothing_about_the_rate(replica: Replica) -> None:
    shared = coalescer(replica, max_requests=1, max_in_flight=1)
    rate = shared._small._queue.rate = DrainRate(clock := Clock())
    tasks = [asyncio.create_task(shared.submit(text)) for text in "abc"]
    await settle()
    replica.gates[0].set_result(None)
    await settle()
    replica.gates[1].set_exception(ReplicaLostError("gone"))
    await settle()
    clock.now += 60  # another replica has started
    replica.gates[2].set_result(None)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert rate.value == 0


def test_token_ids_count_as_the_text_that_they_stand_for() -> None:
    assert embedding_size(EmbeddingRequest(("text", "more"))) == 8
    assert embedding_size(EmbeddingRequest(((101, 2, 102), "text"))) == 16


async def test_a_page_of_text_is_a_call_of_its_own(replica: Replica) -> None:
    """It is cancelled when its client leaves, whoever else has a call under way."""
    shared = Coalescer(Calls(replica, replica, replica), len, CoalescingSettings())
    small, large = (asyncio.create_task(shared.submit("a" * n)) for n in (4000, 4001))
    await settle()
    assert [len(request) for [request] in replica.calls] == [4000, 4001]
    large.cancel()
    await settle()
    assert replica.cancelled == 1
    replica.gates[0].set_result(None)
    assert await small == "A" * 4000
