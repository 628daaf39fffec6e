"""What POST /v1/completions answers: a whole completion, or a stream of chunks."""

from __future__ import annotations

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
    listed = _logprobs(completed.logprobs, 0) if logprobs else None
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
    offsets: dict[int, int] = {}
    async for group in deltas:
        events = []
        for item in group:
            offset = offsets.get(item.index, 0)
            events.append(envelope.chunk(_chunk_choice(item, offset)))
            offsets[item.index] = offset + len(item.delta.text)
            if item.delta.usage:
                usages[item.index] = item.delta.usage
        yield b"".join(events)
    if include_usage:
        in_order = [usage for _, usage in sorted(usages.items())]
        yield envelope.usage(usage_of(by_prompt(in_order, n)))


def _chunk_choice(item: ChoiceDelta, offset: int) -> Json:
    delta = item.delta
    return {
        "index": item.index,
        "text": delta.text,
        "logprobs": _logprobs(delta.logprobs, offset) if delta.logprobs else None,
        "finish_reason": delta.finish_reason,
    }


def _logprobs(entries: Sequence[TokenLogprob], offset: int) -> Json:
    """`offset`: characters of the completion (and echoed prompt) before the first entry."""
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry.text)
    return {
        "tokens": [entry.text for entry in entries],
        "token_logprobs": [_finite(entry) for entry in entries],
        "top_logprobs": [None if entry.logprob is None else _top(entry) for entry in entries],
        "text_offset": offsets,
    }


def _top(entry: TokenLogprob) -> dict[str, float | None]:
    return {top.text: _finite(top) for top in entry.top}


def _finite(entry: TokenLogprob) -> float | None:
    return None if entry.logprob is None else finite(entry.logprob)
