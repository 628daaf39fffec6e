"""What a call to a task's replicas becomes when Ray fails: typed errors, one retry, no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorUnavailableError, RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve._private.metrics_utils import QUEUED_REQUESTS_KEY
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.handles import task_handle as handles
from deployments.handles.task_handle import TaskHandle
from deployments.handles.wake_deadline import WakeDeadline
from models.errors import (
    InvalidInputError,
    MessageTooLargeError,
    ModelError,
    ModelLoadError,
    OverloadedError,
    ReplicaLostAgainError,
    ReplicaLostError,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """A value that must be waited for."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self._opened = asyncio.Event()
        self.open = self._opened.set
        self.wait = self._opened.wait


class Response:
    """One scripted answer: a value, or an exception, after some streamed items."""

    def __init__(self, outcome: Any, items: list[Any]) -> None:
        self.outcome, self._items = outcome, items
        self.cancelled = False

    def __await__(self) -> Any:
        async def result() -> Any:
            if isinstance(self.outcome, Gate):
                await self.outcome.wait()
                self.outcome = self.outcome.value
            if isinstance(self.outcome, Exception):
                raise self.outcome
            return self.outcome

        return result().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self._items:
            yield item
        if isinstance(self.outcome, Exception):
            raise self.outcome

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Answers calls from a script, one entry per call."""

    def __init__(self, *script: Any) -> None:
        self._script = list(script)
        self.responses: list[Response] = []

    def options(self, stream: bool) -> Handle:
        return self

    @property
    def embed(self) -> Handle:
        return self

    def remote(self, *args: Any) -> Response:
        entry = self._script.pop(0)
        items, outcome = entry if isinstance(entry, tuple) else ([], entry)
        self.responses.append(Response(outcome, items))
        return self.responses[-1]

    def broadcast(self, method: str, *args: Any) -> Broadcast:
        return Broadcast(self._script)


class Broadcast:
    """What every replica answers; a TimeoutError is of the whole."""

    def __init__(self, outcomes: list[Any]) -> None:
        self._outcomes = outcomes

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
        assert timeout_s < 10
        assert return_exceptions
        for outcome in self._outcomes:
            if isinstance(outcome, TimeoutError):
                raise outcome
        return self._outcomes


class WakeRecord:
    """Stands for the router of a handle whose task has no replica."""

    def __init__(self) -> None:
        self.data = {QUEUED_REQUESTS_KEY: [0]}
        self._asyncio_router = self
        self.request_router = None
        self._metrics_manager = self
        self.metrics_store = self

    @property
    def forgotten(self) -> bool:
        return QUEUED_REQUESTS_KEY not in self.data


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def died(replica: int = 1) -> Exception:
    """What Serve raises over gRPC when a replica is gone."""
    return ActorUnavailableError("gone", replica.to_bytes(16, "big"))


def unavailable() -> Exception:
    return DeploymentUnavailableError(DeploymentID("Embedding", "inference"))


def bug() -> Exception:
    return RayTaskError("embed", "traceback", KeyError("x")).as_instanceof_cause()


def task_handle(*script: Any, clock: Clock | None = None) -> tuple[TaskHandle, Handle]:
    handle: Any = Handle(*script)

    async def running() -> int:
        return 1

    wake = WakeDeadline("embedding", running, 60)
    return TaskHandle("embedding", handle, wake, clock or Clock()), handle


async def test_a_call_is_repeated_once_when_its_replica_died() -> None:
    task, handle = task_handle(died(), "vectors")
    assert await task.call("embed", 1) == "vectors"
    assert len(handle.responses) == 2


async def test_a_dead_replica_is_asked_again_until_serve_has_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handles, "RETRY_S", 0)
    task, handle = task_handle(died(1), died(1), died(1), "vectors")
    assert await task.call("embed") == "vectors"
    assert len(handle.responses) == 4


async def test_refusals_for_long_are_a_failure_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No replica has run the request: the client may send it again."""
    clock = Clock()

    async def wait(seconds: float) -> None:
        clock.now += 4

    task, handle = task_handle(*(died(1) for _ in range(5)), "never", clock=clock)
    monkeypatch.setattr(handles.asyncio, "sleep", wait)
    with pytest.raises(ModelLoadError, match="No embedding replica answers") as refused:
        await task.call("embed", "model")
    assert refused.value.retry_after == 10
    assert len(handle.responses) == 5  # the loss, and refusals after 0, 4, 8 and 12 seconds


async def test_a_replica_that_was_only_out_of_reach_can_be_lost_later() -> None:
    clock = Clock()
    task, handle = task_handle(died(1), "vectors", died(1), "never", clock=clock)
    assert await task.call("embed", "model") == "vectors"
    clock.now = 11
    with pytest.raises(ReplicaLostError):
        await task.call_once("embed", "model")
    assert len(handle.responses) == 3


async def test_what_a_replica_has_begun_was_not_refused() -> None:
    """However recently it was out of reach: what has begun is not sent again."""
    task, handle = task_handle(died(1), "vectors", (["a"], died(1)), (["never"], None))
    assert await task.call("embed", "model") == "vectors"
    items = task.stream("embed", "model", begun=lambda: True)
    assert await anext(items) == "a"
    with pytest.raises(ReplicaLostError):
        await anext(items)
    assert len(handle.responses) == 3


async def test_a_call_that_was_under_way_for_long_was_not_refused() -> None:
    clock, fit = Clock(), Gate(died(1))
    task, handle = task_handle(died(1), "vectors", fit, "never", clock=clock)
    assert await task.call("embed", "model") == "vectors"
    fitting = asyncio.create_task(task.call_once("embed", "model"))
    await settle()
    clock.now = 11
    fit.open()
    with pytest.raises(ReplicaLostError):
        await fitting
    assert len(handle.responses) == 3


async def test_a_connection_that_breaks_is_a_loss() -> None:
    broken = AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), "10.0.0.1:1234 reset")
    task, _ = task_handle(broken, "vectors")
    assert await task.call("embed") == "vectors"
    task, _ = task_handle(broken)
    with pytest.raises(ReplicaLostError) as lost:
        await task.call_once("embed")
    assert "10.0.0.1" not in lost.value.message


async def over_grpc(*, asked: int, answered: int, limit: int) -> Exception:
    """What gRPC raises for messages of so many bytes, of which one is above the limit."""

    async def answer(request: bytes, context: object) -> bytes:
        return bytes(answered)

    options = [("grpc.max_receive_message_length", limit)]
    server = grpc.aio.server(options=options)
    method = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"b": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            with pytest.raises(AioRpcError) as caught:
                await channel.unary_unary("/a/b")(bytes(asked))
    finally:
        await server.stop(None)
    return caught.value


@pytest.mark.parametrize(("asked", "answered"), [(2000, 1), (1, 2000)])
async def test_what_is_too_large_for_one_message_is_no_loss(asked: int, answered: int) -> None:
    failure = await over_grpc(asked=asked, answered=answered, limit=1000)
    task, handle = task_handle(failure, "never")
    with pytest.raises(MessageTooLargeError, match="too large to be passed on in one piece"):
        await task.call("embed", "model")
    assert len(handle.responses) == 1


async def test_a_peer_without_resources_is_a_loss() -> None:
    """The same status, but no message was too large."""
    details = "Too many pending requests for this server"
    busy = AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, Metadata(), Metadata(), details)
    task, _ = task_handle(busy, "vectors")
    assert await task.call("embed") == "vectors"


async def test_a_call_that_kills_two_replicas_fails() -> None:
    task, handle = task_handle(died(1), died(2), "never")
    with pytest.raises(ReplicaLostAgainError):
        await task.call("embed")
    assert len(handle.responses) == 2


async def test_what_was_lost_already_is_tried_a_last_time() -> None:
    task, handle = task_handle(died(1), "never")
    with pytest.raises(ReplicaLostAgainError):
        await task.call_again("embed")
    assert len(handle.responses) == 1


async def test_what_was_lost_together_goes_on_one_by_one() -> None:
    """So the one at fault meets its second replica alone."""
    dying = [Gate(died(1)) for _ in range(3)]
    task, handle = task_handle(*dying, Gate("a"), Gate("b"), Gate("c"))
    calls = [asyncio.create_task(task.call("embed", "model", name)) for name in "abc"]
    await settle()
    for gate in dying:
        gate.open()
    for number in range(3):
        await settle()
        assert len(handle.responses) == 4 + number
        handle.responses[-1].outcome.open()
    assert await asyncio.gather(*calls) == ["a", "b", "c"]


async def test_a_model_that_ends_replica_after_replica_is_left_alone() -> None:
    task, handle = task_handle(*(died(number) for number in range(3)), "answer of another")
    with pytest.raises(ReplicaLostAgainError):
        await task.call("embed", "crashing")
    with pytest.raises(ModelLoadError) as refused:  # the third loss: no second try
        await task.call("embed", "crashing")
    assert 0 < refused.value.retry_after <= 10
    with pytest.raises(ModelLoadError):
        await task.call("embed", "crashing")
    assert len(handle.responses) == 3
    assert await task.call("embed", "other") == "answer of another"


async def test_refusals_and_errors_of_replicas_are_no_losses() -> None:
    wrapped = RayTaskError("embed", "traceback", InvalidInputError("no")).as_instanceof_cause()
    task, _ = task_handle(died(1), died(2), wrapped, died(3), died(4), "answer")
    with pytest.raises(ReplicaLostAgainError):
        await task.call("embed", "model")
    with pytest.raises(InvalidInputError):
        await task.call("embed", "model")
    with pytest.raises(ReplicaLostAgainError):
        await task.call("embed", "model")
    assert await task.call("embed", "model") == "answer"


async def test_what_must_not_run_twice_is_not_repeated() -> None:
    task, handle = task_handle(died(), "never")
    with pytest.raises(ReplicaLostError):
        await task.call_once("embed")
    assert len(handle.responses) == 1


async def test_a_replicas_own_error_arrives_as_it_was_raised() -> None:
    cause = InvalidInputError("no", "input")
    wrapped = RayTaskError("embed", "traceback", cause).as_instanceof_cause()
    task, _ = task_handle(wrapped)
    with pytest.raises(InvalidInputError) as caught:
        await task.call("embed")
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (BackPressureError(num_queued_requests=3, max_queued_requests=2), OverloadedError),
        (unavailable(), ModelLoadError),
    ],
    ids=["back pressure", "unavailable"],
)
async def test_serves_refusals_are_ours(failure: Exception, expected: type[ModelError]) -> None:
    task, handle = task_handle(failure)
    with pytest.raises(expected) as caught:
        await task.call("embed")
    assert "inference" not in str(caught.value)
    assert len(handle.responses) == 1


async def test_a_bug_of_a_replica_stays_what_it_is() -> None:
    wrapped = RayTaskError("embed", "traceback", KeyError("x")).as_instanceof_cause()
    task, _ = task_handle(wrapped)
    with pytest.raises(KeyError):
        await task.call("embed")


async def test_a_stream_begins_again_only_while_nothing_of_it_was_seen() -> None:
    task, handle = task_handle(([], died()), (["a", "b"], None))
    items = task.stream("embed", begun=lambda: False)
    assert [item async for item in items] == ["a", "b"]
    assert all(response.cancelled for response in handle.responses)

    task, handle = task_handle((["a"], died()), (["never"], None))
    items = task.stream("embed", begun=lambda: True)
    assert await anext(items) == "a"
    with pytest.raises(ReplicaLostError):
        await anext(items)
    assert len(handle.responses) == 1


async def test_leaving_a_stream_cancels_the_call() -> None:
    task, handle = task_handle((["a", "b"], None))
    items = task.stream("embed", begun=lambda: True)
    assert await anext(items) == "a"
    assert not handle.responses[0].cancelled
    await items.aclose()
    assert handle.responses[0].cancelled


@pytest.mark.parametrize("begun", [False, True])
async def test_that_a_call_was_accepted_does_not_erase_losses(begun: bool) -> None:
    """A model may end its process at its first step; the text that it writes shows it works."""
    script = [(["accepted", "text"], died(number)) for number in range(3)]
    task, handle = task_handle(*script, (["accepted"], None))
    for _ in range(2 if not begun else 3):
        items = task.stream("embed", "crashing", begun=lambda: begun)
        with pytest.raises(ReplicaLostError if begun else ModelError):
            [item async for item in items]
    items = task.stream("embed", "crashing", begun=lambda: begun)
    if begun:
        assert [item async for item in items] == ["accepted"]
    else:
        with pytest.raises(ModelLoadError):
            await anext(items)
    assert len(handle.responses) == 3 + begun


async def test_a_stream_that_ends_well_erases_losses() -> None:
    task, _ = task_handle(([], died(1)), ([], died(2)), (["loading"], None), died(3), "vectors")
    for expected in (ReplicaLostAgainError, None):
        items = task.stream("embed", "model", begun=lambda: False)
        if expected is None:
            assert [item async for item in items] == ["loading"]
            continue
        with pytest.raises(expected):
            await anext(items)
    assert await task.call("embed", "model") == "vectors"


async def test_a_broadcast_leaves_failing_replicas_out(caplog: pytest.LogCaptureFixture) -> None:
    task, _ = task_handle("a", died(), "b", bug())
    assert await task.broadcast("status") == ["a", "b"]
    assert "status" in caplog.text
    assert "KeyError" in caplog.text


async def test_a_broadcast_does_not_wait_without_limit() -> None:
    task, _ = task_handle("a", TimeoutError())
    assert await task.broadcast("status") == []


async def test_a_call_and_a_stream_wake_their_task_at_once() -> None:
    for streams in (False, True):
        tasks, handle = task_handle(([1], None) if streams else 1)
        record = WakeRecord()
        handle._router = record  # type: ignore[attr-defined]
        if streams:
            assert [item async for item in tasks.stream("embed", begun=lambda: True)] == [1]
        else:
            assert await tasks.call("embed") == 1
        assert record.forgotten
