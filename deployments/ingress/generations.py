"""From deltas to whole completions, for the routes that generate text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from deployments.ingress.schemas import CompletionUsage, PromptTokensDetails
from models.types import ChoiceDelta, FinishReason, TokenLogprob, Usage


@dataclass(slots=True)
class Completed:
    """One choice put together from its deltas."""

    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    usage: Usage = field(default_factory=lambda: Usage(0))

    @property
    def text(self) -> str:
        return "".join(self.pieces)


async def collect(deltas: AsyncGenerator[list[ChoiceDelta]], choices: int) -> list[Completed]:
    """All choices of a stream, in order. Raises ModelError."""
    completed = [Completed() for _ in range(choices)]
    async with aclosing(deltas):
        async for group in deltas:
            for item in group:
                _add(completed[item.index], item)
    return completed


def _add(choice: Completed, item: ChoiceDelta) -> None:
    choice.pieces.append(item.delta.text)
    choice.logprobs.extend(item.delta.logprobs)
    choice.finish_reason = item.delta.finish_reason or choice.finish_reason
    choice.usage = item.delta.usage or choice.usage


def usage_of(prompts: Sequence[Sequence[Completed]]) -> CompletionUsage:
    """Usage of a response: a prompt counts once, however many choices it has."""
    prompt_tokens = sum(choices[0].usage.prompt_tokens for choices in prompts if choices)
    completion_tokens = sum(c.usage.completion_tokens for choices in prompts for c in choices)
    cached = sum(choices[0].usage.cached_tokens for choices in prompts if choices)
    return CompletionUsage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
    )
