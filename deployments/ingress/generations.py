"""From deltas to whole completions, for the routes that generate text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from deployments.ingress.schemas import (
    CompletionTokensDetails,
    CompletionUsage,
    PromptTokensDetails,
)
from models.types.common import Usage
from models.types.generation import ChoiceDelta, FinishReason, TokenLogprob, ToolCall, ToolCallDelta

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON cannot write; OpenAI uses the same number."""


@dataclass(slots=True)
class Completed:
    """One choice put together from its deltas."""

    pieces: list[str] = field(default_factory=list)
    reasoning_pieces: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    usage: Usage = field(default_factory=lambda: Usage(0))

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def reasoning(self) -> str:
        return "".join(self.reasoning_pieces)


class _ToolCalls:
    """Tool calls of one choice while their pieces arrive."""

    def __init__(self) -> None:
        self._calls: dict[int, tuple[ToolCallDelta, list[str]]] = {}

    def add(self, delta: ToolCallDelta) -> None:
        """The first piece of a call names it."""
        _, arguments = self._calls.setdefault(delta.index, (delta, []))
        arguments.append(delta.arguments)

    def whole(self) -> list[ToolCall]:
        return [
            ToolCall(first.id or "", first.name or "", "".join(arguments))
            for _, (first, arguments) in sorted(self._calls.items())
        ]


async def collect(deltas: AsyncGenerator[list[ChoiceDelta]], choices: int) -> list[Completed]:
    """All choices of a stream, in order. Raises ModelError."""
    completed = [Completed() for _ in range(choices)]
    calls = [_ToolCalls() for _ in range(choices)]
    async with aclosing(deltas):
        async for group in deltas:
            for item in group:
                _add(completed[item.index], item)
                for call in item.delta.tool_calls:
                    calls[item.index].add(call)
    for choice, its_calls in zip(completed, calls, strict=True):
        choice.tool_calls = its_calls.whole()
    return completed


def _add(choice: Completed, item: ChoiceDelta) -> None:
    choice.pieces.append(item.delta.text)
    choice.reasoning_pieces.append(item.delta.reasoning)
    choice.logprobs.extend(item.delta.logprobs)
    choice.finish_reason = item.delta.finish_reason or choice.finish_reason
    choice.usage = item.delta.usage or choice.usage


def usage_of(prompts: Sequence[Sequence[Usage]]) -> CompletionUsage:
    """Usage of a response, from that of each choice of each prompt: a prompt counts once."""
    firsts = [choices[0] for choices in prompts if choices]
    everything = [usage for choices in prompts for usage in choices]
    prompt_tokens = sum(usage.prompt_tokens for usage in firsts)
    completion_tokens = sum(usage.completion_tokens for usage in everything)
    return CompletionUsage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=sum(usage.cached_tokens for usage in firsts)
        ),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=sum(usage.reasoning_tokens for usage in everything)
        ),
    )


def by_prompt(usages: Sequence[Usage], n: int) -> list[Sequence[Usage]]:
    """The usages of choices that are numbered through, `n` for each prompt."""
    return [usages[start : start + n] for start in range(0, len(usages), n)]


def finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
