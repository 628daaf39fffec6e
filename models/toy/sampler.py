"""Every sampling parameter in a page of numpy, for engines whose vocabulary is small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from models.sampling import is_greedy
from models.structured.constraint import TokenConstraint
from models.types import FloatArray, SamplingParams


class NumpySampler:
    """Chooses the tokens of one request from rows of logits.

    The order is bias, penalties, top_k, temperature, top_p, min_p, draw. Presence and frequency
    penalties see the completion, the repetition penalty sees the prompt too.
    """

    def __init__(
        self, params: SamplingParams, *, prompt: Sequence[int], end_tokens: Iterable[int]
    ) -> None:
        self._params = params
        self._prompt = set(prompt)
        self._end_tokens = sorted(end_tokens)
        self._generated: Counter[int] = Counter()
        self._random = np.random.default_rng(params.seed)

    def choose(self, logits: FloatArray, constraint: TokenConstraint | None = None) -> int:
        """The next token; `logits` is [vocabulary] and not changed."""
        scores = self._adjusted(logits)
        if constraint is not None:
            constraint.mask(scores)
        token = int(scores.argmax()) if is_greedy(self._params) else self._draw(scores)
        self.accept(token)
        return token

    def accept(self, token: int) -> None:
        """Take note of a token that was chosen otherwise."""
        self._generated[token] += 1

    def _adjusted(self, logits: FloatArray) -> FloatArray:
        params, scores = self._params, logits.copy()
        for token, bias in params.logit_bias:
            scores[token] += bias
        repetition = params.repetition_penalty
        for token in self._prompt | self._generated.keys() if repetition != 1 else ():
            scores[token] *= repetition if scores[token] < 0 else 1 / repetition
        for token, count in self._generated.items():
            scores[token] -= params.presence_penalty + params.frequency_penalty * count
        if params.ignore_eos or self._generated.total() < params.min_tokens:
            scores[self._end_tokens] = -np.inf
        return scores

    def _draw(self, scores: FloatArray) -> int:
        params = self._params
        order = np.argsort(-scores, kind="stable")[: params.top_k or None]
        weights = np.exp((scores[order] - scores[order[0]]).astype(np.float64) / params.temperature)
        weights /= weights.sum()
        before = np.cumsum(weights) - weights  # of the likelier tokens
        kept = (before < params.top_p) & (weights >= params.min_p * weights[0])
        weights = np.where(kept, weights, 0)
        return int(order[self._random.choice(len(order), p=weights / weights.sum())])
