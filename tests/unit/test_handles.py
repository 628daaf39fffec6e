"""What a call to a task's replicas becomes when Ray fails: typed errors, one retry, no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError, RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments import handles
from deployments.handles import TaskHandle
from models.errors import (
    InvalidInputError,
    ModelError,
    ModelLoadError,
    OverloadedError,
    ReplicaLostError,
)


class Response:
    """One scripted answer: a value, or an exception, after some streamed items."""

    def __init__(self, outcome: Any, items: list[Any]) -> None:
        self._outcome, self._items = outcome, items
        self.cancelled = False

    def __await__(self) -> Any:
        async def result() -> Any:
            if isinstance(self._outcome, Exception):
                raise self._outcome
            return self._outcome

        return result().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self._items:
            yield item
        if isinstance(self._outcome, Exception):
            raise self._outcome

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


def died(replica: int = 1) -> Exception:
    """What Serve raises over gRPC when a replica is gone."""
    return ActorUnavailableError("gone", replica.to_bytes(16, "big"))


def unavailable() -> Exception:
    return DeploymentUnavailableError(DeploymentID("Embedding", "inference"))


def task_handle(*script: Any) -> tuple[TaskHandle, Handle]:
    handle: Any = Handle(*script)
    return TaskHandle("embedding", handle), handle


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
    monkeypatch.setattr(handles, "NOTICE_S", -1)
    task, handle = task_handle(died(1), died(1), "never")
    with pytest.raises(ReplicaLostError):
        await task.call("embed")


async def test_a_call_that_kills_two_replicas_fails() -> None:
    task, handle = task_handle(died(1), died(2), "never")
    with pytest.raises(ReplicaLostError):
        await task.call("embed")
    assert len(handle.responses) == 2


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
