"""Log probabilities of the model's own distribution, before temperature, penalties and bias."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.types.common import FloatArray
from models.types.generation import TokenLogprob


def token_logprob(
    logits: FloatArray, token: int, alternatives: int, pieces: Sequence[bytes]
) -> TokenLogprob:
    """The chosen token and its `alternatives` likeliest rivals, likeliest first.

    `logits` is one row, [vocabulary]; natural logarithms.
    """
    peak = float(logits.max())
    normalizer = peak + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))

    def entry(index: int, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        raw = pieces[index]
        return TokenLogprob(
            raw.decode("utf-8", "replace"), raw, float(logits[index]) - normalizer, top
        )

    return entry(token, tuple(entry(int(i)) for i in _likeliest(logits, alternatives)))


def _likeliest(logits: FloatArray, count: int) -> list[int]:
    if count == 0:
        return []
    count = min(count, len(logits))
    best = np.argpartition(logits, -count)[-count:]
    return [int(i) for i in best[np.argsort(-logits[best], kind="stable")]]
