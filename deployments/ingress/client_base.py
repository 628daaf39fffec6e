"""What the clients of all tasks share: deadlines, and calls that small requests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

from config.settings import CoalescingSettings
from deployments.ingress.access.gate import caller_name, spend
from deployments.ingress.coalescer import Calls, Coalescer
from deployments.ingress.fan_out import fan_out
from deployments.ingress.observing.request_record import note_usage
from deployments.ingress.replicas import Replicas
from models.errors import DeadlineExceededError
from models.types.common import Usage
from models.types.status import ModelStatus, ReplicaStatus

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")


class TaskClient:
    """What all tasks share."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._telling: set[asyncio.Task[list[Any]]] = set()

    async def statuses(self) -> list[ReplicaStatus]:
        """One entry per running replica; wakes none."""
        return await self._replicas.broadcast("status")

    def load_model(self, model_id: str) -> AsyncGenerator[ModelStatus]:
        """What becomes of a load, at last the loaded model. Wakes the task. Raises ModelError.

        Closing the generator does not end the load.
        """
        return self._replicas.stream("load_model", model_id, begun=lambda: False)

    def download_model(self, model_id: str) -> AsyncGenerator[ModelStatus]:
        """As `load_model`, of the weights on the replica's node."""
        return self._replicas.stream("download_model", model_id, begun=lambda: False)

    def keep(self, model_id: str, seconds: float | None) -> asyncio.Future[list[Any]]:
        """How long a model stays idle in the replicas that run, see `ModelCache.keep`.

        They are told even if who waits for it is cancelled, as when a client has left.
        """
        work = self._replicas.broadcast("keep_model", model_id, seconds)
        telling = asyncio.get_running_loop().create_task(work, context=Context())
        self._telling.add(telling)  # the event loop itself keeps no task from being collected
        telling.add_done_callback(self._telling.discard)
        return asyncio.shield(telling)


class BatchClient(TaskClient, Generic[RequestT, ResultT]):
    """A task whose method takes many requests; small ones for one model share calls.

    `size` measures a request in characters (or cells, or bytes).
    """

    def __init__(
        self,
        replicas: Replicas,
        method: str,
        *,
        size: Callable[[RequestT], int],
        settings: CoalescingSettings,
        deadline_s: float,
    ) -> None:
        super().__init__(replicas)
        self._method = method
        self._size = size
        self._settings = settings
        self._deadline_s = deadline_s
        self._coalescers: dict[str, Coalescer[RequestT, ResultT]] = {}

    async def submit(self, model_id: str, request: RequestT) -> ResultT:
        """The request's result. Raises ModelError; DeadlineExceededError after our deadline.

        `model_id` is an id of the catalogue, so there are never more coalescers than models.
        """
        coalescer = self._coalescers.get(model_id)
        if coalescer is None:
            coalescer = self._coalescers[model_id] = self._coalescer(model_id)
        async with self._deadline():
            result = await coalescer.submit(request, caller_name() or "")
        usage = getattr(result, "usage", None)  # what reads no texts has none
        if isinstance(usage, Usage):
            spend(usage.prompt_tokens)
            note_usage(usage)
        return result

    async def submit_all(self, model_id: str, requests: Sequence[RequestT]) -> list[ResultT]:
        """The results of what was one request to us, see `fan_out`; one deadline for all."""
        async with self._deadline():
            return await fan_out(partial(self.submit, model_id), requests)

    def _deadline(self) -> AbstractAsyncContextManager[None]:
        return within(self._deadline_s)

    def _coalescer(self, model_id: str) -> Coalescer[RequestT, ResultT]:
        calls: Calls[RequestT, ResultT] = Calls(
            alone=partial(self._replicas.call, self._method, model_id),
            shared=partial(self._replicas.call_once, self._method, model_id),
            again=partial(self._replicas.call_again, self._method, model_id),
        )
        return Coalescer(calls, self._size, self._settings)


@asynccontextmanager
async def within(deadline_s: float) -> AsyncGenerator[None]:
    """Raises DeadlineExceededError when the block takes longer."""
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError:
        raise deadline_exceeded(deadline_s) from None


def deadline_exceeded(deadline_s: float) -> DeadlineExceededError:
    return DeadlineExceededError(f"Not answered within the server's deadline of {deadline_s:g} s.")
