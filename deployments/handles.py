"""Calls from the ingress to a task's replicas, with our rules instead of Ray's exceptions.

What a replica raised arrives as the `ModelError` it was. A call whose replica died is made once
more: Serve never retries requests in flight, and once is enough, because an input that kills its
replica must not kill every replica.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NoReturn

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from models.errors import ModelError, ModelLoadError, OverloadedError, ReplicaLostError

_REPLICA_FAILURES = (
    RayActorError,
    RayTaskError,
    BackPressureError,
    DeploymentUnavailableError,
)


class TaskHandle:
    """The replicas of one task."""

    def __init__(self, task: str, handle: DeploymentHandle[Any]) -> None:
        self.task = task
        self._handle = handle
        self._streaming = handle.options(stream=True)

    async def call(self, method: str, *args: Any) -> Any:
        """The method's result. The method must be idempotent. Raises ModelError."""
        try:
            return await self._attempt(method, *args)
        except ReplicaLostError:
            return await self._attempt(method, *args)

    async def call_once(self, method: str, *args: Any) -> Any:
        """As `call`, for methods that must not run twice."""
        return await self._attempt(method, *args)

    async def _attempt(self, method: str, *args: Any) -> Any:
        try:
            return await getattr(self._handle, method).remote(*args)
        except _REPLICA_FAILURES as error:
            self._raise_ours(error)

    async def stream(self, method: str, *args: Any) -> AsyncGenerator[Any]:
        """The items of a generator method. Begun again once if its replica dies before the first.

        Closing the iterator cancels the call. Raises ModelError.
        """
        started = False
        for attempt in (1, 2):
            try:
                async with aclosing(self._stream_once(method, *args)) as items:
                    async for item in items:
                        started = True
                        yield item
                return
            except ReplicaLostError:
                if started or attempt == 2:
                    raise

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
        except _REPLICA_FAILURES:
            return []

    def _raise_ours(self, error: Exception) -> NoReturn:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, ModelError):
            raise cause from None
        if isinstance(error, BackPressureError):
            raise OverloadedError(f"Too many {self.task} requests are waiting.") from error
        if isinstance(error, DeploymentUnavailableError):
            raise ModelLoadError(f"The {self.task} deployment is not available.") from error
        if isinstance(error, RayActorError):
            message = f"The {self.task} replica that served this request died."
            raise ReplicaLostError(message) from error
        raise error
