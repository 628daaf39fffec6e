"""Calls from the ingress to a task's replicas, with our rules instead of Ray's exceptions.

What a replica raised arrives as the `ModelError` it was. A call whose replica died is made once
more: Serve never retries requests in flight, and once is enough, because an input that kills its
replica must not kill every replica.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, NoReturn

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from models.errors import ModelError, ModelLoadError, OverloadedError, ReplicaLostError

_REPLICA_FAILURES = (RayTaskError, BackPressureError, DeploymentUnavailableError)
MAX_LOSSES = 2
NOTICE_S = 10.0
"""For how long Serve may go on offering a dead replica; its health checks run every second."""
RETRY_S = 0.2


class TaskHandle:
    """The replicas of one task."""

    def __init__(self, task: str, handle: DeploymentHandle[Any]) -> None:
        self.task = task
        self._handle = handle
        self._streaming = handle.options(stream=True)

    async def call(self, method: str, *args: Any) -> Any:
        """The method's result. The method must be idempotent. Raises ModelError."""
        losses = _Losses(self.task)
        while True:
            try:
                return await self._attempt(method, *args)
            except RayActorError as error:
                await losses.add(error)

    async def call_once(self, method: str, *args: Any) -> Any:
        """As `call`, for methods that must not run twice."""
        try:
            return await self._attempt(method, *args)
        except RayActorError as error:
            raise _lost(self.task) from error

    async def _attempt(self, method: str, *args: Any) -> Any:
        response = getattr(self._handle, method).remote(*args)
        try:
            return await response
        except _REPLICA_FAILURES as error:
            self._raise_ours(error)
        except asyncio.CancelledError:
            response.cancel()
            raise

    async def stream(
        self, method: str, *args: Any, begun: Callable[[], bool]
    ) -> AsyncGenerator[Any]:
        """The items of a generator method, which is called again once if its replica dies.

        Not after `begun` says that the caller has seen a part of the result. Closing the iterator
        cancels the call. Raises ModelError.
        """
        losses = _Losses(self.task)
        while True:
            try:
                async with aclosing(self._stream_once(method, *args)) as items:
                    async for item in items:
                        yield item
                return
            except RayActorError as error:
                if begun():
                    raise _lost(self.task) from error
                await losses.add(error)

    async def _stream_once(self, method: str, *args: Any) -> AsyncGenerator[Any]:
        response = getattr(self._streaming, method).remote(*args)
        try:
            async for item in response:
                yield item
        except _REPLICA_FAILURES as error:
            self._raise_ours(error)
        finally:
            response.cancel()

    async def broadcast(self, method: str, *args: Any) -> list[Any]:
        """The method's result from every running replica; none are started for it."""
        try:
            return list(await self._handle.broadcast(method, *args).results_async())
        except (RayActorError, *_REPLICA_FAILURES):
            return []

    def _raise_ours(self, error: Exception) -> NoReturn:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, ModelError):
            raise cause from None
        if isinstance(error, BackPressureError):
            raise OverloadedError(f"Too many {self.task} requests are waiting.") from error
        if isinstance(error, DeploymentUnavailableError):
            raise ModelLoadError(f"The {self.task} deployment is not available.") from error
        raise error


class _Losses:
    """The replicas that one request was lost on.

    Serve goes on offering a dead replica until it notices. Being refused by one that is known to
    be dead is not a further loss: the request waits a little and asks again.
    """

    def __init__(self, task: str) -> None:
        self._task = task
        self._dead: set[str] = set()
        self._count = 0
        self._deadline = 0.0

    async def add(self, error: RayActorError) -> None:
        """Return when the request may be sent again. Raises ReplicaLostError when it may not."""
        if error.actor_id in self._dead:
            if time.monotonic() > self._deadline:
                raise _lost(self._task) from error
            await asyncio.sleep(RETRY_S)
            return
        self._count += 1
        self._deadline = time.monotonic() + NOTICE_S
        if self._count == MAX_LOSSES:
            raise _lost(self._task) from error
        if error.actor_id is not None:
            self._dead.add(error.actor_id)


def _lost(task: str) -> ReplicaLostError:
    return ReplicaLostError(f"The {task} replica that served this request died.")
