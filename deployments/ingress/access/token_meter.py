"""Tokens of a generation, counted against the caller's key while they arrive: a client that leaves
early has not had them for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from deployments.ingress.access.gate import spend
from models.types.generation import ChoiceDelta, GenerationRequest


class TokenMeter:
    """The tokens of one call. A delta counts as one until the usage says how many there were."""

    def __init__(self, requests: Sequence[GenerationRequest]) -> None:
        starts = [sum(request.n for request in requests[:index]) for index in range(len(requests))]
        self.firsts = frozenset(starts)
        """A prompt counts once, with its first choice."""
        self._counted: Counter[int] = Counter()

    def add(self, deltas: Iterable[ChoiceDelta]) -> None:
        tokens = 0
        for item in deltas:
            self._counted[item.index] += 1
            tokens += 1
            usage = item.delta.usage
            if usage is not None:
                tokens += usage.completion_tokens - self._counted[item.index]
                tokens += usage.prompt_tokens if item.index in self.firsts else 0
        spend(tokens)
