"""Heads with more than one output as rerankers: the odds of one of their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.encoders.tokenization import TokenSequence
from models.errors import ModelLoadError
from models.types.common import FloatArray

Compute = Callable[[list[TokenSequence]], list[FloatArray]]


def odds_of(compute: Compute, label: int) -> Compute:
    """Rows of one number, the label's log odds: after a sigmoid, its share of the softmax."""

    def odds(sequences: list[TokenSequence]) -> list[FloatArray]:
        return [_log_odds(row, label) for row in compute(sequences)]

    return odds


def _log_odds(logits: FloatArray, label: int) -> FloatArray:
    others = np.delete(logits.astype(np.float64), label)
    highest = others.max()
    total = highest + np.log(np.exp(others - highest).sum())
    return np.array([float(logits[label]) - total], dtype=np.float32)


def label_index(names: Sequence[str], label: int | str | None) -> int | None:
    """Which of a head's labels is meant, by number or by name in any case; of yes and no, yes.

    None for a head of one label. Raises ModelLoadError.
    """
    known = {name.lower(): index for index, name in enumerate(names)}
    if label is None:
        if len(names) == 1:
            return None
        if known.keys() == {"yes", "no"}:
            return known["yes"]
        raise ModelLoadError("the head has several labels; choose one with the option 'label'")
    index = known.get(label.lower(), -1) if isinstance(label, str) else label
    if not 0 <= index < len(names):
        raise ModelLoadError(f"the head has no such label; it has {', '.join(names)}")
    return index if len(names) > 1 else None
