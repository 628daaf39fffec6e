"""The generation calls of one ingress: a stream each, but deltas travel together.

The counterpart of deployments/delta_streams.py: whichever stream brings a call's deltas, they are
put where the call's request waits for them.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import aclosing, contextmanager
from contextvars import Context
from functools import partial
from typing import Any

from deployments.ingress.replicas import Replicas
from models.errors import EngineDeadError, ReplicaLostError
from models.types.generation import ChoiceDelta, Delivery, GenerationRequest


class GenerationCall:
    """One call and what has arrived for it. Event loop only."""

    def __init__(self, choices: int) -> None:
        self.id = uuid.uuid4().hex
        self.accepted = False
        """Its stream has brought something, and may carry the text of others."""
        self.begun = False
        """Some text has arrived: the call can no longer be made again elsewhere."""
        self.left = False
        """Its request no longer waits for it."""
        self._open_choices = choices
        self._deltas: list[ChoiceDelta] = []
        self._error: BaseException | None = None
        self._wake = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Every choice has ended."""
        return self._open_choices <= 0

    @property
    def finished(self) -> bool:
        """Every choice has ended and every delta has been taken."""
        return self.complete and not self._deltas

    def deliver(self, delivery: Delivery) -> None:
        self.begun = True
        self._deltas += delivery.deltas
        self._open_choices -= sum(d.delta.finish_reason is not None for d in delivery.deltas)
        self._error = self._error or delivery.error
        self._wake.set()

    def fail(self, error: BaseException) -> None:
        """End the call, unless it is complete."""
        if self.complete:
            return
        self._error = self._error or error
        self._wake.set()

    async def take(self) -> list[ChoiceDelta]:
        """All that is there, at least one delta. Raises what ended the call."""
        while not self._deltas:
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()
        deltas, self._deltas = self._deltas, []
        return deltas


class GenerationSession:
    """The open calls of one ingress replica."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._id = uuid.uuid4().hex
        self._calls: dict[str, GenerationCall] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._cancelling: set[asyncio.Task[Any]] = set()

    @contextmanager
    def call(self, model_id: str, requests: list[GenerationRequest]) -> Iterator[GenerationCall]:
        """Generate for the requests; leaving the context before the end cancels the call."""
        call = GenerationCall(sum(request.n for request in requests))
        self._calls[call.id] = call
        reading = _spawn(self._read(call, model_id, requests))
        self._reading[call.id] = reading
        reading.add_done_callback(partial(self._stream_ended, call))
        try:
            yield call
        finally:
            call.left = True
            del self._calls[call.id]
            if not call.complete and call.id in self._reading:
                self._cancel(call)

    async def _read(
        self, call: GenerationCall, model_id: str, requests: list[GenerationRequest]
    ) -> None:
        """Hand out what the call's own stream brings, for this call or for others."""
        items = self._replicas.stream(
            "generate", self._id, call.id, model_id, requests, begun=lambda: call.begun
        )
        async with aclosing(items):
            async for deliveries in items:
                call.accepted = True
                if not deliveries and call.left:  # accepted after its request had gone
                    self._cancel(call)
                for delivery in deliveries:
                    receiver = self._calls.get(delivery.call_id)
                    if receiver is not None:
                        receiver.deliver(delivery)

    def _cancel(self, call: GenerationCall) -> None:
        """By message, because other calls' deltas may travel in the call's stream."""
        task = _spawn(self._replicas.broadcast("cancel", call.id))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    def _stream_ended(self, call: GenerationCall, reading: asyncio.Task[None]) -> None:
        del self._reading[call.id]
        error = asyncio.CancelledError() if reading.cancelled() else reading.exception()
        if error is not None:
            call.fail(error)
        refused = not call.accepted and not isinstance(error, ReplicaLostError)
        if (error is None or refused) and self._reading:
            return  # what is missing comes in the stream of another call
        # Calls whose own streams have ended may have waited for their last deltas in this one.
        lost: BaseException = EngineDeadError("The engine has ended before the text was complete.")
        if error is not None and not refused:
            lost = error
        for other in self._calls.values():
            if other.id not in self._reading:
                other.fail(lost)


def _spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Run in a context of its own: Serve cancels what was called in the context of a request
    whose client has gone, and these calls serve others too."""
    return asyncio.get_running_loop().create_task(work, context=Context())
