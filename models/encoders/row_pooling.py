"""Pooling without torch: the hidden states of one sequence to its vector, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.encoders.tokenization import TokenSequence
from models.types.common import FloatArray


def _weighted_mean(states: FloatArray) -> FloatArray:
    """The n-th token weighs n."""
    ranks = np.arange(1, len(states) + 1, dtype=np.float32)
    return np.asarray(ranks @ states / ranks.sum(), dtype=np.float32)


_POOLINGS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "cls": lambda states: states[0],
    "lasttoken": lambda states: states[-1],
    "max": lambda states: states.max(axis=0),
    "mean": lambda states: states.mean(axis=0),
    "mean_sqrt_len_tokens": lambda states: states.sum(axis=0) / np.float32(len(states) ** 0.5),
    "weightedmean": _weighted_mean,
}
POOLINGS = frozenset(_POOLINGS)


def pooled_row(states: FloatArray, sequence: TokenSequence, modes: Sequence[str]) -> FloatArray:
    """[tokens, hidden] of one sequence, padding allowed after it, to its row.

    The row is a vector [hidden * modes]; of sequences with spans a matrix, a vector per span.
    """
    if sequence.spans is None:
        return _pooled(states[: len(sequence)], modes)
    return np.stack([_pooled(states[start:stop], modes) for start, stop in sequence.spans])


def _pooled(states: FloatArray, modes: Sequence[str]) -> FloatArray:
    parts = [_POOLINGS[mode](states) for mode in modes]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
