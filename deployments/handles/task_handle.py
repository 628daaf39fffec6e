"""Calls from the ingress to a task's replicas, with our rules instead of Ray's exceptions.

What a replica raised arrives as the `ModelError` it was. A call whose replica died is made once
more: Serve never retries requests in flight, and once is enough, because an input that kills its
replica must not kill every replica. What was lost goes on one at a time, so that of all that were
lost together the one at fault meets its second replica alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, NoReturn

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from deployments.handles.loss_breaker import LossBreaker
from deployments.handles.turns import Turns
from deployments.handles.wake_deadline import WakeDeadline
from models.errors import (
    ModelError,
    ModelLoadError,
    OverloadedError,
    ReplicaLostAgainError,
    ReplicaLostError,
)

SERVE_REFUSALS = (BackPressureError, DeploymentUnavailableError)
NOTICE_S = 10.0
"""For how long Serve may go on offering a dead replica; its health checks run every second."""
RETRY_S = 0.2
REMEMBERED = 64
"""Dead replicas, of each task."""
_END = object()
_MODEL_AT = {"generate": 2}
"""Where a method's arguments name the model, if not at the beginning."""


class TaskHandle:
    """The replicas of one task."""

    def __init__(self, task: str, handle: DeploymentHandle[Any], wake: WakeDeadline) -> None:
        self.task = task
        self._handle = handle
        self._wake = wake
        self._streaming = handle.options(stream=True)
        self._breaker = LossBreaker()
        self._dead: deque[str] = deque(maxlen=REMEMBERED)
        self._turns = Turns()

    async def call(self, method: str, *args: Any) -> Any:
        """The method's result. The method must be idempotent. Raises ModelError."""
        try:
            return await self.call_once(method, *args)
        except ReplicaLostError:
            return await self.call_again(method, *args)

    async def call_once(self, method: str, *args: Any) -> Any:
        """As `call`, for methods that must not run twice."""
        async with aclosing(self._sent(self._answer, method, *args)) as answers:
            return await anext(answers)

    async def call_again(self, method: str, *args: Any) -> Any:
        """As `call`, for what has been lost once. Raises ReplicaLostAgainError."""
        async with self._turns.turn():
            try:
                return await self.call_once(method, *args)
            except ReplicaLostError as error:
                raise ReplicaLostAgainError(error.message) from error

    async def stream(
        self, method: str, *args: Any, begun: Callable[[], bool]
    ) -> AsyncGenerator[Any]:
        """The items of a generator method, which is called again once if its replica dies.

        Not after `begun` says that the caller has seen a part of the result. Closing the iterator
        cancels the call. Raises ModelError.
        """
        try:
            async with aclosing(self._sent(self._items, method, *args)) as items:
                async for item in items:
                    yield item
            return
        except ReplicaLostError:
            if begun():
                raise
        async with self._turns.turn(until=begun):
            try:
                async with aclosing(self._sent(self._items, method, *args)) as items:
                    async for item in items:
                        yield item
            except ReplicaLostError as error:
                if begun():
                    raise
                raise ReplicaLostAgainError(error.message) from error

    async def broadcast(self, method: str, *args: Any) -> list[Any]:
        """The method's result from every running replica; none are started for it."""
        try:
            return list(await self._handle.broadcast(method, *args).results_async())
        except (RayActorError, RayTaskError, *SERVE_REFUSALS):
            return []

    async def _sent(
        self, send: Callable[..., AsyncGenerator[Any]], method: str, *args: Any
    ) -> AsyncGenerator[Any]:
        """What `send` brings from a replica that is not known to be dead.

        Serve goes on offering a dead replica until it notices. Being refused by one is no loss: the
        request waits a little and asks again. Raises ModelError, ReplicaLostError for a loss,
        LoadTimeoutError where no replica starts.
        """
        model_id = _model_of(method, args)
        self._breaker.check(model_id)
        deadline = 0.0
        while True:
            known = frozenset(self._dead)
            try:
                async with aclosing(send(method, *args)) as items:
                    item = await self._wake.first(anext(items, _END))
                    while item is not _END:
                        self._breaker.answered(model_id)
                        yield item
                        item = await anext(items, _END)
                return
            except RayTaskError as error:
                self._breaker.answered(model_id)
                self._raise_ours(error)
            except SERVE_REFUSALS as error:
                self._raise_ours(error)
            except RayActorError as error:
                if error.actor_id not in known:
                    raise self._lost(model_id, error) from error
                deadline = deadline or time.monotonic() + NOTICE_S
                if time.monotonic() > deadline:
                    raise ReplicaLostError(f"No {self.task} replica answers.") from error
            await asyncio.sleep(RETRY_S)

    async def _answer(self, method: str, *args: Any) -> AsyncGenerator[Any]:
        """One item: the result."""
        response = getattr(self._handle, method).remote(*args)
        try:
            result = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        yield result

    async def _items(self, method: str, *args: Any) -> AsyncGenerator[Any]:
        response = getattr(self._streaming, method).remote(*args)
        try:
            async for item in response:
                yield item
        finally:
            response.cancel()

    def _lost(self, model_id: str, error: RayActorError) -> ReplicaLostError:
        if error.actor_id is not None:
            if error.actor_id not in self._dead:
                self._dead.append(error.actor_id)
            if model_id:
                self._breaker.lost(model_id, error.actor_id)
        return ReplicaLostError(f"The {self.task} replica that served this request died.")

    def _raise_ours(self, error: Exception) -> NoReturn:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, ModelError):
            raise cause from None
        if isinstance(error, BackPressureError):
            raise OverloadedError(f"Too many {self.task} requests are waiting.") from error
        if isinstance(error, DeploymentUnavailableError):
            raise ModelLoadError(f"The {self.task} deployment is not available.") from error
        raise error


def _model_of(method: str, args: tuple[Any, ...]) -> str:
    """The id of the model that is asked; "" for what needs none."""
    named = args[_MODEL_AT.get(method, 0)] if args else ""
    return named if isinstance(named, str) else ""
