"""Detectors that need no more than numpy; what they learn is a dictionary of arrays.

Sums over features are taken column by column, products row by row: the result for a row is then the
same, bit for bit, whether it is scored alone or among others. (A matrix product is not: its order
of summation depends on the shape of the batch.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.anomaly.calibration import Scores
from models.anomaly.tables import Matrix

Arrays = dict[str, npt.NDArray[np.float64]]

MAD_TO_STD = 1.482602218505602
"""Standard deviation of a normal distribution per median absolute deviation."""
MEAN_AD_TO_STD = 1.2533141373155001
"""The same per mean absolute deviation (Iglewicz and Hoaglin, 1993), where the median is 0."""


def fit_deviations(rows: Matrix, center: str) -> Arrays:
    """`center` is "mean" (z-scores) or "median" (robust z-scores by the MAD)."""
    if center == "mean":
        return {"center": rows.mean(axis=0), "scale": _positive(rows.std(axis=0))}
    middle = np.median(rows, axis=0)
    distances = np.abs(rows - middle)
    mad = MAD_TO_STD * np.median(distances, axis=0)
    scale = np.where(mad > 0, mad, MEAN_AD_TO_STD * distances.mean(axis=0))
    return {"center": middle, "scale": _positive(scale)}


def score_deviations(state: Arrays, rows: Matrix) -> Scores:
    """The largest distance from the centre among the features, in standard deviations."""
    distances: Matrix = np.abs((rows - state["center"]) / state["scale"])
    return np.asarray(distances.max(axis=1), dtype=np.float64)


def fit_ecod(rows: Matrix) -> Arrays:
    """Empirical cumulative distributions of each feature (ECOD; Li et al., TKDE 2022)."""
    centred = rows - rows.mean(axis=0)
    return {"sorted": np.sort(rows, axis=0).T.copy(), "skew": (centred**3).mean(axis=0)}


def score_ecod(state: Arrays, rows: Matrix) -> Scores:
    """The largest of three sums of -log tail probabilities: left, right, and by skewness.

    The paper's algorithm 1. A value beyond all training values gets the probability 1 / (n + 1).
    """
    left, right, by_skew = np.zeros((3, len(rows)))
    for values, known, skew in zip(rows.T, state["sorted"], state["skew"], strict=True):
        low = _surprise(np.searchsorted(known, values, side="right"), len(known))
        high = _surprise(len(known) - np.searchsorted(known, values, side="left"), len(known))
        left += low
        right += high
        by_skew += low if skew < 0 else high
    return np.maximum(np.maximum(left, right), by_skew)


def fit_hbos(rows: Matrix, n_bins: int) -> Arrays:
    """Histograms of equal bins, the highest bar of each being 1 (Goldstein and Dengel, 2012)."""
    low, high = rows.min(axis=0), rows.max(axis=0)
    width = _positive((high - low) / n_bins)
    heights = np.stack(
        [
            np.bincount(_bins(values, start, step, n_bins), minlength=n_bins).astype(np.float64)
            for values, start, step in zip(rows.T, low, width, strict=True)
        ]
    )
    heights /= heights.max(axis=1, keepdims=True)
    return {"low": low, "high": high, "width": width, "heights": heights}


def score_hbos(state: Arrays, rows: Matrix, regularizer: float) -> Scores:
    """Sum over the features of -log(height + regularizer); outside of all bins the height is 0."""
    total = np.zeros(len(rows))
    n_bins = state["heights"].shape[1]
    features = (state["low"], state["high"], state["width"], state["heights"])
    for values, low, high, width, heights in zip(rows.T, *features, strict=True):
        height = heights[_bins(values, low, width, n_bins)]
        inside = (values >= low) & (values <= high)
        total -= np.log(np.where(inside, height, 0.0) + regularizer)
    return total


def fit_pca(rows: Matrix, explained_variance: float) -> Arrays:
    """The mean and the fewest leading components with that share of the variance.

    At least one component is left out: the distance to the whole space would be 0 for all rows.
    """
    mean = rows.mean(axis=0)
    _, singular, components = np.linalg.svd(rows - mean, full_matrices=False)
    explained = np.cumsum(singular**2) / max(float((singular**2).sum()), np.finfo(float).tiny)
    kept = min(int(np.searchsorted(explained, explained_variance)) + 1, rows.shape[1] - 1)
    return {"mean": mean, "components": np.ascontiguousarray(components[:kept])}


def score_pca(state: Arrays, rows: Matrix) -> Scores:
    """Squared distance to the subspace of the components: the reconstruction error."""
    rest = rows - state["mean"]
    for component in state["components"]:
        rest = rest - np.vecdot(rest, component)[:, np.newaxis] * component
    return np.asarray(np.vecdot(rest, rest), dtype=np.float64)


def _positive(scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A feature that never varied is measured in its own unit."""
    return np.where(scale > 0, scale, 1.0)


def _surprise(count: npt.NDArray[np.intp], n: int) -> Scores:
    return -np.log(np.maximum(count / n, 1 / (n + 1)))


def _bins(values: Scores, low: float, width: float, n_bins: int) -> npt.NDArray[np.intp]:
    return np.clip((values - low) / width, 0, n_bins - 1).astype(np.intp)
