"""What POST /v1/completions answers: a whole completion, or a stream of chunks."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

from deployments.ingress.generations import Completed, by_prompt, finite, usage_of
from deployments.ingress.schemas import CompletionUsage, FinishReason, Reply
from deployments.ingress.sse import Envelope
from models.types.common import Usage
from models.types.generation import ChoiceDelta, TokenLogprob

Json = dict[str, Any]


class CompletionLogprobs(Reply):
    """The first token of an echoed prompt has null for its log probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Reply):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class Completion(Reply):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage


def completion_choice(index: int, completed: Completed, *, logprobs: bool) -> CompletionChoice:
    listed = _logprobs(completed.logprobs, _Positions()) if logprobs else None
    return CompletionChoice(
        index=index,
        text=completed.text,
        logprobs=None if listed is None else CompletionLogprobs.model_validate(listed),
        finish_reason=completed.finish_reason,
    )


async def completion_chunks(
    deltas: AsyncGenerator[list[ChoiceDelta]], envelope: Envelope, *, n: int, include_usage: bool
) -> AsyncGenerator[bytes]:
    """Groups of events: the deltas of each step, at the end the usage. `n` choices per prompt."""
    usages: dict[int, Usage] = {}
    positions: defaultdict[int, _Positions] = defaultdict(_Positions)
    async for group in deltas:
        events = []
        for item in group:
            events.append(envelope.chunk(_chunk_choice(item, positions[item.index])))
            if item.delta.usage:
                usages[item.index] = item.delta.usage
        yield b"".join(events)
    if include_usage:
        in_order = [usage for _, usage in sorted(usages.items())]
        yield envelope.usage(usage_of(by_prompt(in_order, n)))


class _Positions:
    """Where the tokens of one choice begin in its text, in characters. Those that share a character
    begin where it does."""

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def take(self, entry: TokenLogprob) -> int:
        begin = self._characters
        self._characters += len(self._decoder.decode(entry.raw))
        return begin


def _chunk_choice(item: ChoiceDelta, positions: _Positions) -> Json:
    delta = item.delta
    return {
        "index": item.index,
        "text": delta.text,
        "logprobs": _logprobs(delta.logprobs, positions) if delta.logprobs else None,
        "finish_reason": delta.finish_reason,
    }


def _logprobs(entries: Sequence[TokenLogprob], positions: _Positions) -> Json:
    """Of entries that follow those whose positions were taken before."""
    return {
        "tokens": [entry.text for entry in entries],
        "token_logprobs": [_finite(entry) for entry in entries],
        "top_logprobs": [None if entry.logprob is None else _top(entry) for entry in entries],
        "text_offset": [positions.take(entry) for entry in entries],
    }


def _top(entry: TokenLogprob) -> dict[str, float | None]:
    """The likeliest tokens, and the chosen one in any case."""
    return {token.text: _finite(token) for token in (*entry.top, entry)}


def _finite(entry: TokenLogprob) -> float | None:
    return None if entry.logprob is None else finite(entry.logprob)
