"""A listener that remembers, for tests of generation engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.errors import ModelError
from models.types.common import Usage
from models.types.generation import (
    ChatPrompt,
    GenerationRequest,
    Message,
    Prompt,
    SamplingParams,
    TextDelta,
    TextPrompt,
    TokenizeRequest,
)

WAIT = 60.0
Events = Sequence[tuple[str, TextDelta | ModelError]]


@dataclass
class Completion:
    """All that was heard of one request."""

    deltas: list[TextDelta] = field(default_factory=list)
    error: ModelError | None = None

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def finish_reason(self) -> str | None:
        return self.deltas[-1].finish_reason if self.deltas else None

    @property
    def usage(self) -> Usage:
        usage = self.deltas[-1].usage
        assert usage is not None
        return usage

    @property
    def logprobs(self) -> list[Any]:
        return [item for delta in self.deltas for item in delta.logprobs]

    @property
    def ended(self) -> bool:
        return self.error is not None or self.finish_reason is not None


class Recorder:
    """Collects the events of an engine; `react` is called with each of them on its thread."""

    def __init__(
        self,
        react: Callable[[str, TextDelta | ModelError], object] | None = None,
        *,
        patience: float = WAIT,
    ) -> None:
        self._patience = patience
        self.steps: list[list[str]] = []
        self.completions: dict[str, Completion] = {}
        self.react = react
        self._heard = threading.Condition()

    def listen(self, events: Events) -> None:
        with self._heard:
            self.steps.append([request_id for request_id, _ in events])
            for request_id, event in events:
                self._keep(self.completions.setdefault(request_id, Completion()), event)
            self._heard.notify_all()
        for request_id, event in events:
            if self.react is not None:
                self.react(request_id, event)

    def _keep(self, completion: Completion, event: TextDelta | ModelError) -> None:
        assert not completion.ended
        if isinstance(event, ModelError):
            completion.error = event
        else:
            completion.deltas.append(event)

    def started(self, request_id: str) -> None:
        """Wait for the first event of a request."""
        with self._heard:
            assert self._heard.wait_for(lambda: request_id in self.completions, self._patience)

    def take(self, request_id: str) -> Completion:
        """Wait for the end of a request, and forget it."""
        with self._heard:
            done = self._heard.wait_for(
                lambda: request_id in self.completions and self.completions[request_id].ended,
                self._patience,
            )
            assert done, "the request did not end"
            return self.completions.pop(request_id)


@dataclass
class Call:
    """A tool call put together from its pieces."""

    id: str = ""
    name: str = ""
    arguments: str = ""


def calls_of(completion: Completion) -> list[Call]:
    calls: dict[int, Call] = {}
    for piece in (piece for delta in completion.deltas for piece in delta.tool_calls):
        call = calls.setdefault(piece.index, Call())
        assert piece.id is None or not call.id
        call.id += piece.id or ""
        call.name += piece.name or ""
        call.arguments += piece.arguments
    assert list(calls) == list(range(len(calls)))
    return list(calls.values())


def request_of(prompt: Prompt | str, **sampling: Any) -> GenerationRequest:
    prompt = TextPrompt(prompt) if isinstance(prompt, str) else prompt
    return GenerationRequest(prompt, SamplingParams(**sampling))


def ids_of(engine: Any, text: str) -> tuple[int, ...]:
    """The tokens of a plain text, control texts in it not read as control tokens."""
    tokens: tuple[int, ...] = engine.tokenize(TokenizeRequest(TextPrompt(text))).ids
    return tokens


def chat(*contents: str) -> ChatPrompt:
    """A conversation in which user and assistant take turns."""
    roles = ("user", "assistant")
    return ChatPrompt(tuple(Message(roles[i % 2], text) for i, text in enumerate(contents)))


def assert_same_up_to_ties(left: Completion, right: Completion, tolerance: float) -> None:
    """Two greedy completions with `logprobs=2` took the same way, or parted at a near tie.

    Kernels differ between batch sizes in the last bits, so that nearly equal logits may swap.
    """
    for a, b in zip(left.logprobs, right.logprobs, strict=False):
        assert abs(a.top[0].logprob - b.top[0].logprob) < tolerance
        if a.raw != b.raw:
            assert a.top[0].logprob - a.top[1].logprob < tolerance
            assert {item.raw for item in a.top} == {item.raw for item in b.top}
            return
    assert left.text == right.text
