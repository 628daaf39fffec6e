"""From the engines' threads to the ingresses: one wake-up per step, one stream per ingress.

A streamed item costs Serve far more than what is in it, and the more streams there are, the more
items there are per engine step (benchmarks/stream_hop.py). So the deltas of all calls of one
ingress travel together: the first of its calls carries them in its stream, for as long as any call
is open; the streams of the others stay silent and only say when their call has ended. Every call
has a stream of its own all the same, so that Serve's routing, load figures and failures are per
call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from models.errors import ModelError, ReplicaLostError
from models.types.generation import ChoiceDelta, Delivery, TextDelta

StepEvent = tuple[str, TextDelta | ModelError]


@dataclass(slots=True)
class _Call:
    open_choices: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    deltas: list[ChoiceDelta] = field(default_factory=list)
    error: ModelError | None = None
    abandoned: bool = False

    @property
    def complete(self) -> bool:
        """Nothing will come after what is there."""
        return self.open_choices <= 0 or self.error is not None


class DeltaSession:
    """The open calls of one ingress, and what has been generated for them. Event loop only."""

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}
        self._ready: dict[str, _Call] = {}
        self._wake = asyncio.Event()
        self.carried = False

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._calls

    def __len__(self) -> int:
        return len(self._calls)

    def open(self, call_id: str, choices: int) -> None:
        self._calls[call_id] = _Call(choices)

    def push(self, call_id: str, index: int, event: TextDelta | ModelError) -> None:
        call = self._calls.get(call_id)
        if call is None:
            return
        if isinstance(event, ModelError):
            call.error = event
        else:
            call.deltas.append(ChoiceDelta(index, event))
            call.open_choices -= event.finish_reason is not None
        self._ready[call_id] = call
        self._wake.set()

    def close(self, call_id: str) -> None:
        """Forget a call; unknown ones are ignored."""
        self._ready.pop(call_id, None)
        call = self._calls.pop(call_id, None)
        if call is not None:
            call.ended.set()
            self._wake.set()

    async def ended(self, call_id: str) -> None:
        """Return when all of a call has been carried or it was closed.

        Raises ReplicaLostError when the stream that carried it ended too early.
        """
        call = self._calls.get(call_id)
        if call is None:
            return
        await call.ended.wait()
        if call.abandoned:
            raise ReplicaLostError("The stream that carried this request's text has ended.")

    async def carry(self) -> AsyncGenerator[list[Delivery]]:
        """What is generated for all calls, until none is open."""
        self.carried = True
        try:
            while self._calls:
                if self._ready:
                    yield self._take()
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            self.carried = False
            for call_id in list(self._calls):
                self._calls[call_id].abandoned = True
                self.close(call_id)

    def _take(self) -> list[Delivery]:
        ready, self._ready = self._ready, {}
        deliveries = []
        for call_id, call in ready.items():
            deliveries.append(Delivery(call_id, tuple(call.deltas), call.error))
            call.deltas.clear()
            if call.complete:
                self.close(call_id)
        return deliveries


class DeltaStreams:
    """The sessions of all ingresses, and which engine request belongs to which call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sessions: dict[str, DeltaSession] = {}
        self._requests: dict[str, tuple[DeltaSession, str, int]] = {}

    def listen(self, events: Sequence[StepEvent]) -> None:
        """The engines' step listener, called on their threads once per step."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._dispatch, events)

    def _dispatch(self, events: Sequence[StepEvent]) -> None:
        for request_id, event in events:
            entry = self._requests.get(request_id)
            if entry is not None:
                session, call_id, index = entry
                session.push(call_id, index, event)

    def open(self, session_id: str, call_id: str, request_ids: Sequence[str]) -> DeltaSession:
        """Register a call whose choices are these engine requests, in order.

        Called on the event loop that will carry the deltas.
        """
        self._loop = asyncio.get_running_loop()
        session = self._sessions.setdefault(session_id, DeltaSession())
        session.open(call_id, len(request_ids))
        for index, request_id in enumerate(request_ids):
            self._requests[request_id] = (session, call_id, index)
        return session

    def close(self, session_id: str, call_id: str, request_ids: Sequence[str]) -> None:
        """Forget a call and, after its last one, its session."""
        for request_id in request_ids:
            self._requests.pop(request_id, None)
        session = self._sessions.get(session_id)
        if session is None:
            return
        session.close(call_id)
        if not session and not session.carried:
            del self._sessions[session_id]

    def cancel(self, call_id: str) -> None:
        """End a call of any session; its stream notices."""
        for session in self._sessions.values():
            session.close(call_id)

    def __len__(self) -> int:
        """Engine requests that are registered."""
        return len(self._requests)
