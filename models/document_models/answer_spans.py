"""The most probable answer in the start and end scores of a page's windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SpanScores:
    """Logits of one window: of the page's tokens from `first` on, and of there being no answer."""

    first: int
    start: Logits
    end: Logits
    nothing: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """Tokens [`start`, `stop`) of the page; None where there is no answer."""

    span: tuple[int, int] | None
    probability: float


def best_answer(windows: Sequence[SpanScores], *, max_tokens: int, may_be_none: bool) -> Answer:
    """The best span of all windows that starts before it ends and is not longer than that.

    Its probability is that of its start times that of its end, among no answer and all tokens of
    the page (a token of two windows counts once, with its higher score). With one window this is
    the score of transformers' pipeline.
    """
    nothing = min((window.nothing for window in windows), key=sum)
    span, score = max(
        (_best_span(window, max_tokens) for window in windows), key=lambda found: found[1]
    )
    total = sum(_log_sum(_merged(windows, side), nothing[side]) for side in (0, 1))
    if may_be_none and sum(nothing) > score:
        return Answer(None, float(np.exp(sum(nothing) - total)))
    return Answer(span, float(np.exp(score - total)))


def _best_span(window: SpanScores, max_tokens: int) -> tuple[tuple[int, int], float]:
    """Tokens of the page and the sum of their logits."""
    best, score = (0, 0), -np.inf
    for more in range(min(max_tokens, len(window.start))):
        sums = window.start[: len(window.start) - more] + window.end[more:]
        place = int(sums.argmax())
        if sums[place] > score:
            start = window.first + place
            best, score = (start, start + more + 1), float(sums[place])
    return best, score


def _merged(windows: Sequence[SpanScores], side: int) -> Logits:
    """The logits of every token of the page to be the start (0) or the end (1)."""
    size = max(window.first + len(window.start) for window in windows)
    merged = np.full(size, -np.inf, dtype=np.float32)
    for window in windows:
        scores = (window.start, window.end)[side]
        part = merged[window.first : window.first + len(scores)]
        np.maximum(part, scores, out=part)
    return merged


def _log_sum(scores: Logits, other: float) -> float:
    every = np.append(scores, other).astype(np.float64)
    peak = every.max()
    return float(peak + np.log(np.exp(every - peak).sum()))
