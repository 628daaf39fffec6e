"""From the engine's thread to the event loop: one wake-up per step, one buffer per request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from models.errors import ModelError
from models.types import ChoiceDelta, TextDelta

StepEvent = tuple[str, TextDelta | ModelError]


class DeltaStream:
    """What has been generated for one request and not been taken yet. Event loop only."""

    def __init__(self, choices: int) -> None:
        self._open_choices = choices
        self._deltas: list[ChoiceDelta] = []
        self._error: ModelError | None = None
        self._wake = asyncio.Event()

    def push(self, index: int, event: TextDelta | ModelError) -> None:
        if isinstance(event, ModelError):
            self._error = event
        else:
            self._deltas.append(ChoiceDelta(index, event))
            self._open_choices -= event.finish_reason is not None
        self._wake.set()

    @property
    def finished(self) -> bool:
        """Every choice has ended and every delta has been taken."""
        return self._open_choices <= 0 and not self._deltas

    async def take(self) -> list[ChoiceDelta]:
        """All that is there, at least one delta. Raises the error that ended the request."""
        while not self._deltas:
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()
        deltas, self._deltas = self._deltas, []
        return deltas


class DeltaStreams:
    """The running requests of one engine."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: dict[str, tuple[DeltaStream, int]] = {}

    def listen(self, events: Sequence[StepEvent]) -> None:
        """The engine's step listener, called on its thread once per step."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._dispatch, events)

    def _dispatch(self, events: Sequence[StepEvent]) -> None:
        for request_id, event in events:
            entry = self._streams.get(request_id)
            if entry is not None:
                stream, index = entry
                stream.push(index, event)

    def open(self, request_ids: Sequence[str]) -> DeltaStream:
        """One stream for the choices of a request, in the order of their ids.

        Called on the event loop that will take the deltas.
        """
        self._loop = asyncio.get_running_loop()
        stream = DeltaStream(len(request_ids))
        for index, request_id in enumerate(request_ids):
            self._streams[request_id] = (stream, index)
        return stream

    def close(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            self._streams.pop(request_id, None)

    def __len__(self) -> int:
        return len(self._streams)
