"""Tail probabilities by features: ECOD (Li et al., TKDE 2022) and COPOD (Li et al., ICDM 2020).

Both learn each feature's empirical cumulative distribution and add up -log tail probabilities, as
PyOD does. PyOD counts the scored rows among the training rows, so that its scores depend on the
batch; here the training rows alone count, and a value beyond all of them gets 1 / (n + 1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix

Arrays = dict[str, npt.NDArray[np.float64]]


def fit_tails(rows: Matrix) -> Arrays:
    """`sorted` [features, rows] and the sign of each feature's skewness."""
    centred = rows - rows.mean(axis=0)
    return {"sorted": np.sort(rows, axis=0).T.copy(), "skew": np.sign((centred**3).mean(axis=0))}


def score_ecod(state: Arrays, rows: Matrix) -> Scores:
    return _summed(_ecod_parts(state, rows), len(rows))


def score_copod(state: Arrays, rows: Matrix) -> Scores:
    return _summed(_copod_parts(state, rows), len(rows))


def ecod_parts(state: Arrays, rows: Matrix) -> Matrix:
    """[rows, features]; they add up to the score."""
    return np.stack(list(_ecod_parts(state, rows)), axis=1)


def copod_parts(state: Arrays, rows: Matrix) -> Matrix:
    """[rows, features]; they add up to the score."""
    return np.stack(list(_copod_parts(state, rows)), axis=1)


def _ecod_parts(state: Arrays, rows: Matrix) -> Iterator[Scores]:
    """By features: the rarer tail, or the sum of both where neither is the longer one."""
    for left, right, by_skew in _tails(state, rows):
        yield np.maximum(np.maximum(left, right), by_skew)


def _copod_parts(state: Arrays, rows: Matrix) -> Iterator[Scores]:
    """By features: the longer tail, or the mean of both."""
    for left, right, by_skew in _tails(state, rows):
        yield np.maximum(by_skew, (left + right) / 2)


def _tails(state: Arrays, rows: Matrix) -> Iterator[tuple[Scores, Scores, Scores]]:
    """By features: -log P(X <= x), -log P(X >= x), and the one on the side of the longer tail."""
    for values, known, skew in zip(rows.T, state["sorted"], state["skew"], strict=True):
        surprise = -np.log(np.maximum(np.arange(len(known) + 1) / len(known), 1 / (len(known) + 1)))
        left = surprise[np.searchsorted(known, values, side="right")]
        right = surprise[len(known) - np.searchsorted(known, values, side="left")]
        if skew == 0:
            yield left, right, left + right
        else:
            yield left, right, left if skew < 0 else right


def _summed(parts: Iterator[Scores], count: int) -> Scores:
    """Feature by feature, so that a row's sum is the same in any batch."""
    total = np.zeros(count)
    for part in parts:
        total += part
    return total
