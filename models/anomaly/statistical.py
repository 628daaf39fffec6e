"""Deviations and principal components; what they learn is a dictionary of arrays.

Sums over features are taken column by column, products row by row: the result for a row is then the
same, bit for bit, whether it is scored alone or among others. (A matrix product is not: its order
of summation depends on the shape of the batch.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix

Arrays = dict[str, npt.NDArray[np.float64]]

MAD_TO_STD = 1.482602218505602
"""Standard deviation of a normal distribution per median absolute deviation."""
MEAN_AD_TO_STD = 1.2533141373155001
"""The same per mean absolute deviation (Iglewicz and Hoaglin, 1993), where the median is 0."""

CHUNK_ROWS = 1024
"""Rows that are taken off all components while they are in the cache."""


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
    return np.asarray(deviations(state, rows).max(axis=1), dtype=np.float64)


def deviations(state: Arrays, rows: Matrix) -> Matrix:
    """Distances from the centre in standard deviations, [rows, features]."""
    return np.asarray(np.abs((rows - state["center"]) / state["scale"]), dtype=np.float64)


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
    scores = np.empty(len(rows))
    for start in range(0, len(rows), CHUNK_ROWS):
        rest = _residuals(state, rows[start : start + CHUNK_ROWS])
        scores[start : start + CHUNK_ROWS] = np.vecdot(rest, rest)
    return scores


def pca_errors(state: Arrays, rows: Matrix) -> Matrix:
    """The reconstruction error by features, [rows, features]."""
    return np.asarray(_residuals(state, rows) ** 2, dtype=np.float64)


def _residuals(state: Arrays, rows: Matrix) -> Matrix:
    rest = rows - state["mean"]
    for component in state["components"]:
        rest = rest - np.vecdot(rest, component)[:, np.newaxis] * component
    return rest


def _positive(scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A feature that never varied is measured in its own unit."""
    return np.where(scale > 0, scale, 1.0)
