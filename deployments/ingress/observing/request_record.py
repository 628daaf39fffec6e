"""What becomes known of one HTTP request on its way, for its log line and its metrics.

The record travels in a context variable: whoever learns something notes it, without being handed
anything. Nothing that a client wrote is noted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from models.types.common import Usage
from models.types.generation import ChoiceDelta

CLIENT_LEFT = 499
"""The status of what nobody waits for any more."""
NONE = "none"
"""The label of what a request does not have."""


@dataclass(slots=True)
class RequestRecord:
    """Times are those of `time.monotonic`, 0 where something has not happened.

    `on_model` is called once, when the request is found to be for a model.
    """

    on_model: Callable[[RequestRecord], None] | None = None
    begun: float = field(default_factory=time.monotonic)
    route: str = NONE
    task: str = NONE
    model: str = NONE
    models: list[tuple[str, str]] = field(default_factory=list)
    """Task and id of all models, where it is for several."""
    status: int = 0
    code: str = ""
    answered: float = 0.0
    first_text: float = 0.0
    choices_begun: dict[int, float] = field(default_factory=dict)
    """When the first text of each choice came that has not ended."""
    token_times: list[float] = field(default_factory=list)
    """Of each choice that has ended the mean time per token after the first."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    woke: bool = False
    wake_probe: asyncio.TimerHandle | None = None

    @property
    def inter_token_s(self) -> float | None:
        """Mean time per token after the first, of the mean choice."""
        return sum(self.token_times) / len(self.token_times) if self.token_times else None

    def count(self, usage: Usage) -> None:
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.cached_tokens += usage.cached_tokens

    def count_text(self, item: ChoiceDelta, now: float, *, with_prompt: bool) -> None:
        """What has come of a choice; its usage comes with the last of it."""
        begun = self.choices_begun.setdefault(item.index, now)
        usage = item.delta.usage
        if usage is None:
            return
        del self.choices_begun[item.index]  # another generation of the request may have its number
        self.count(usage if with_prompt else replace(usage, prompt_tokens=0, cached_tokens=0))
        if usage.completion_tokens > 1:
            self.token_times.append((now - begun) / (usage.completion_tokens - 1))


_current: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


@contextmanager
def recording(record: RequestRecord) -> Iterator[None]:
    """What is noted inside is noted there."""
    token = _current.set(record)
    try:
        yield
    finally:
        _current.reset(token)


def note_route(path: str) -> None:
    """The template, as the table of routes has it."""
    if (record := _current.get()) is not None:
        record.route = path


def note_model(task: str, model_id: str) -> None:
    """An id of the catalogue, whatever the client called it."""
    record = _current.get()
    if record is None:
        return
    first, record.task, record.model = record.model == NONE, task, model_id
    record.models.append((task, model_id))
    if first and record.on_model is not None:
        record.on_model(record)


def models_of_request() -> set[tuple[str, str]]:
    """Task and id of every model that the present request is for."""
    record = _current.get()
    return set() if record is None else set(record.models)


def note_error(code: str | None) -> None:
    """The code of the error that the request ends with."""
    if (record := _current.get()) is not None:
        record.code = code or "unknown"


def note_cut_off() -> None:
    """The client did not take its answer to the end, whatever status that began with."""
    if (record := _current.get()) is not None:
        record.status, record.code = CLIENT_LEFT, "unread"


def note_usage(usage: Usage) -> None:
    if (record := _current.get()) is not None:
        record.count(usage)


def note_deltas(deltas: Iterable[ChoiceDelta], firsts: Collection[int]) -> None:
    """Text that has just arrived; a prompt counts with its first choice, which is in `firsts`.

    Called once per engine step and call.
    """
    record = _current.get()
    if record is None:
        return
    now = time.monotonic()
    record.first_text = record.first_text or now
    for item in deltas:
        record.count_text(item, now, with_prompt=item.index in firsts)
