"""Calls from the ingress to a task's replicas, with our rules instead of Ray's exceptions.

What a replica raised arrives as the `ModelError` it was. A call whose replica died is made once
more: Serve never retries requests in flight, and once is enough, because an input that kills its
replica must not kill every replica. What was lost goes on one at a time, so that of all that were
lost together the one at fault meets its second replica alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, NoReturn

from grpc import StatusCode
from grpc.aio import AioRpcError
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from deployments.handles.loss_breaker import LossBreaker
from deployments.handles.prompt_wake import PromptWake
from deployments.handles.turns import Turns
from deployments.handles.wake_deadline import WakeDeadline
from models.errors import (
    MessageTooLargeError,
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
BROADCAST_S = 5.0
TOO_LARGE = "message larger than max"
"""gRPC says so at either end, under a status that overload has as well."""
_END = object()
_MODEL_AT = {"generate": 2}
"""Where a method's arguments name the model, if not at the beginning."""

logger = logging.getLogger("ray.serve")


class TaskHandle:
    """The replicas of one task."""

    def __init__(
        self,
        task: str,
        handle: DeploymentHandle[Any],
        wake: WakeDeadline,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.task = task
        self._handle = handle
        self._wake = wake
        self._streaming = handle.options(stream=True)
        self._clock = clock
        self._breaker = LossBreaker(clock)
        self._dead: dict[str, float] = {}
        """When a call was last lost with a replica or refused by it."""
        self._turns = Turns()
        self._prompt_wake = PromptWake()

    async def call(self, method: str, *args: Any) -> Any:
        """The method's result. The method must be idempotent. Raises ModelError."""
        try:
            return await self.call_once(method, *args)
        except ReplicaLostError:
            return await self.call_again(method, *args)

    async def call_once(self, method: str, *args: Any) -> Any:
        """As `call`, for methods that must not run twice."""
        result = self._sent(self._answer, method, *args, begun=lambda: True)
        async with aclosing(result) as answers:
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
            async with aclosing(self._sent(self._items, method, *args, begun=begun)) as items:
                async for item in items:
                    yield item
            return
        except ReplicaLostError:
            if begun():
                raise
        async with self._turns.turn(until=begun):
            try:
                async with aclosing(self._sent(self._items, method, *args, begun=begun)) as items:
                    async for item in items:
                        yield item
            except ReplicaLostError as error:
                if begun():
                    raise
                raise ReplicaLostAgainError(error.message) from error

    async def broadcast(self, method: str, *args: Any) -> list[Any]:
        """The method's result from every running replica; none are started for it.

        Replicas that fail are left out. One that hangs leaves out all: Ray keeps no part.
        """
        response = self._handle.broadcast(method, *args)
        try:
            results = await response.results_async(timeout_s=BROADCAST_S, return_exceptions=True)
        except (TimeoutError, RayActorError, *SERVE_REFUSALS) as error:
            results = [error]
        for failure in results:
            if isinstance(failure, BaseException):
                message = "A broadcast of %s to the %s replicas failed"
                logger.warning(message, method, self.task, exc_info=failure)
        return [result for result in results if not isinstance(result, BaseException)]

    async def _sent(
        self,
        send: Callable[..., AsyncGenerator[Any]],
        method: str,
        *args: Any,
        begun: Callable[[], bool],
    ) -> AsyncGenerator[Any]:
        """What `send` brings from a replica that is not known to be dead.

        Serve goes on offering a dead replica until it notices. Being refused by one is no loss: the
        request waits a little and asks again. Raises ModelError, ReplicaLostError for a loss,
        LoadTimeoutError where no replica starts.
        """
        model_id = _model_of(method, args)
        self._breaker.check(model_id)
        first_refused: float | None = None
        while True:
            known, came = self._known_dead(), False
            try:
                async with aclosing(send(method, *args)) as items:
                    item = await self._wake.first(anext(items, _END))
                    while item is not _END:
                        came = True
                        if begun():  # before that, what came may only say that the call was taken
                            self._breaker.answered(model_id)
                        yield item
                        item = await anext(items, _END)
                self._breaker.answered(model_id)
                return
            except RayTaskError as error:
                self._breaker.answered(model_id)
                self._raise_ours(error)
            except (*SERVE_REFUSALS, AioRpcError) as error:
                self._raise_ours(error)
            except RayActorError as error:
                if came or error.actor_id not in known & self._known_dead():
                    raise self._lost(model_id, error) from error
                now = self._dead[error.actor_id] = self._clock()
                first_refused = now if first_refused is None else first_refused
                if now - first_refused > NOTICE_S:
                    raise ModelLoadError(f"No {self.task} replica answers.") from error
            await asyncio.sleep(RETRY_S)

    def _known_dead(self) -> frozenset[str]:
        """Replicas that were found dead a moment ago; for good, living ones would be among them:
        a broken connection looks the same."""
        now = self._clock()
        self._dead = {name: at for name, at in self._dead.items() if now - at < NOTICE_S}
        return frozenset(self._dead)

    async def _answer(self, method: str, *args: Any) -> AsyncGenerator[Any]:
        """One item: the result."""
        self._prompt_wake(self._handle)
        response = getattr(self._handle, method).remote(*args)
        try:
            result = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        yield result

    async def _items(self, method: str, *args: Any) -> AsyncGenerator[Any]:
        self._prompt_wake(self._streaming)
        response = getattr(self._streaming, method).remote(*args)
        try:
            async for item in response:
                yield item
        finally:
            response.cancel()

    def _lost(self, model_id: str, error: RayActorError) -> ReplicaLostError:
        if error.actor_id is not None:
            self._dead[error.actor_id] = self._clock()
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
        if isinstance(error, AioRpcError):
            if _too_large(error):
                raise MessageTooLargeError(
                    f"This {self.task} request or its answer is too large to be passed on in one "
                    "piece: split it."
                ) from error
            logger.warning("The connection to a %s replica broke: %s", self.task, error.code())
            raise ReplicaLostError(f"The connection to a {self.task} replica broke.") from error
        raise error


def _too_large(error: AioRpcError) -> bool:
    exhausted = error.code() == StatusCode.RESOURCE_EXHAUSTED
    return exhausted and TOO_LARGE in (error.details() or "")


def _model_of(method: str, args: tuple[Any, ...]) -> str:
    """The id of the model that is asked; "" for what needs none."""
    named = args[_MODEL_AT.get(method, 0)] if args else ""
    return named if isinstance(named, str) else ""
