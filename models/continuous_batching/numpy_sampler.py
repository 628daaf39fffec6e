"""Every sampling parameter in numpy, for engines that hand out rows of logits.

The same choices as llama.cpp's samplers, which the tests compare with these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from models.continuous_batching.sampling import check_logits, is_greedy
from models.structured.constraint import TokenConstraint
from models.types.common import FloatArray
from models.types.generation import SamplingParams

CANDIDATES = 1000
"""`top_k` when the request gives none: sorting and normalising a whole vocabulary costs several
times as much, and what lies beyond the first thousand tokens is noise."""

_SEEDS = 2**64


class NumpySampler:
    """Chooses the tokens of one request from rows of logits.

    The order is bias, penalties, top_k, temperature, top_p, min_p, draw. Presence and frequency
    penalties see the completion, the repetition penalty sees the prompt too. Every request has its
    own generator, so its draws do not depend on what else is in the batch.
    """

    def __init__(
        self, params: SamplingParams, *, prompt: Sequence[int], end_tokens: Iterable[int]
    ) -> None:
        self._params = params
        self._greedy = is_greedy(params)
        self._bias = [np.array(column) for column in zip(*params.logit_bias, strict=True)]
        self._end_tokens = np.array(sorted(end_tokens), np.intp)
        self._repeats = params.repetition_penalty != 1
        self._penalises = params.presence_penalty != 0 or params.frequency_penalty != 0
        self._seen = dict.fromkeys(prompt) if self._repeats else {}
        self._counts: Counter[int] = Counter()
        self._chosen = 0
        seed = params.seed
        self._random = np.random.default_rng(None if seed is None else seed % _SEEDS)

    def choose(self, logits: FloatArray, constraint: TokenConstraint | None = None) -> int:
        """The next token, one that the constraint allows; `logits` is [vocabulary], not changed.

        Raises ModelError where these are no numbers.
        """
        check_logits(logits)
        scores = self._adjusted(logits)
        if constraint is not None:
            scores = logits.copy() if scores is logits else scores
            constraint.mask(scores)
        token = int(scores.argmax()) if self._greedy else self._draw(scores)
        self.accept(token)
        return token

    def accept(self, token: int) -> None:
        """Take note of a token that was chosen, here or otherwise."""
        self._chosen += 1
        if self._penalises:
            self._counts[token] += 1
        if self._repeats:
            self._seen[token] = None

    def _adjusted(self, logits: FloatArray) -> FloatArray:
        """The logits with bias and penalties; the same array when there are none."""
        bans = self._params.ignore_eos or self._chosen < self._params.min_tokens
        if not (self._bias or bans or self._repeats or self._penalises):
            return logits
        scores = logits.copy()
        if self._bias:
            np.add.at(scores, self._bias[0], self._bias[1].astype(scores.dtype))
        if self._repeats:
            seen = np.fromiter(self._seen, np.intp, len(self._seen))
            scores[seen] = _repeated(scores[seen], self._params.repetition_penalty)
        if self._counts:
            self._penalise(scores)
        if bans:
            scores[self._end_tokens] = -np.inf
        return scores

    def _penalise(self, scores: FloatArray) -> None:
        size = len(self._counts)
        tokens = np.fromiter(self._counts, np.intp, size)
        counts = np.fromiter(self._counts.values(), np.float32, size)
        params = self._params
        scores[tokens] -= params.presence_penalty + params.frequency_penalty * counts

    def _draw(self, scores: FloatArray) -> int:
        params = self._params
        order = likeliest(scores, params.top_k or CANDIDATES)
        weights = np.exp((scores[order] - scores[order[0]]).astype(np.float64) / params.temperature)
        weights /= weights.sum()
        before = np.cumsum(weights) - weights  # of the likelier tokens
        kept = (before < params.top_p) & (weights >= params.min_p * weights[0]) & (weights > 0)
        order, sums = order[kept], np.cumsum(weights[kept])
        place = np.searchsorted(sums, self._random.random() * sums[-1], side="right")
        return int(order[min(place, len(order) - 1)])


def _repeated(scores: FloatArray, penalty: float) -> FloatArray:
    """Logits made smaller, whatever their sign."""
    adjusted: FloatArray = np.where(scores < 0, scores * penalty, scores / penalty)
    return adjusted


def likeliest(scores: FloatArray, count: int) -> npt.NDArray[np.intp]:
    """The ids of the `count` highest scores, highest first, then by id; of several equal
    last ones any may be left out."""
    if count < len(scores):
        best = np.sort(np.argpartition(scores, -count)[-count:])
        return best[np.argsort(-scores[best], kind="stable")]
    return np.argsort(-scores, kind="stable")
