"""Histograms: HBOS (Goldstein and Dengel, 2012) and LODA (Pevny, 2016), with PyOD's estimates.

Where PyOD gives a value outside of all bars the height of a bar, it has height 0 here: a value far
from all training rows is the most anomalous one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix

Arrays = dict[str, npt.NDArray[np.float64]]

LODA_EMPTY = 1e-12
"""What PyOD adds to the counts of LODA's bars."""


def fit_hbos(rows: Matrix, n_bins: int) -> Arrays:
    """`edges` [features, bins + 1] and `density` [features, bins] of equal bars."""
    bars = [np.histogram(values, bins=n_bins, density=True) for values in rows.T]
    return {
        "density": np.stack([density for density, _ in bars]),
        "edges": np.stack([edges for _, edges in bars]),
    }


def score_hbos(state: Arrays, rows: Matrix, alpha: float, tol: float) -> Scores:
    """Sum over the features of -log2(density + alpha).

    A value up to `tol` bars beyond the ends counts as in the last bar.
    """
    return _summed(_hbos_parts(state, rows, alpha, tol), len(rows))


def hbos_parts(state: Arrays, rows: Matrix, alpha: float, tol: float) -> Matrix:
    """[rows, features]; they add up to the score."""
    return np.stack(list(_hbos_parts(state, rows, alpha, tol)), axis=1)


def _hbos_parts(state: Arrays, rows: Matrix, alpha: float, tol: float) -> Iterator[Scores]:
    for values, edges, density in zip(rows.T, state["edges"], state["density"], strict=True):
        surprise = -np.log2(np.append(density, 0.0) + alpha)
        yield surprise[_bars(values, edges, tol)]


def fit_loda(rows: Matrix, n_bins: int, n_random_cuts: int, seed: int) -> Arrays:
    """Sparse random projections and the histogram along each, by PyOD.

    `features` and `weights` [cuts, sqrt(features)], `shares` [cuts, bins], `edges` [cuts, bins + 1]
    """
    from pyod.models.loda import LODA

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loda = LODA(n_bins=n_bins, n_random_cuts=n_random_cuts, random_state=seed).fit(rows)
    width = int(np.count_nonzero(loda.projections_, axis=1).max())
    order = np.argsort(loda.projections_ == 0, axis=1, kind="stable")[:, :width]
    return {
        "features": order.astype(np.float64),
        "weights": np.take_along_axis(loda.projections_, order, axis=1),
        "shares": loda.histograms_,
        "edges": loda.limits_,
    }


def score_loda(state: Arrays, rows: Matrix) -> Scores:
    """Mean over the projections of -log of the share of training rows in the same bar."""
    surprise = -np.log(
        np.append(state["shares"], np.full((len(state["shares"]), 1), LODA_EMPTY), 1)
    )
    columns = np.ascontiguousarray(rows.T)
    total = np.zeros(len(rows))
    cuts = zip(state["features"], state["weights"], state["edges"], surprise, strict=True)
    for features, weights, edges, heights in cuts:
        values = np.zeros(len(rows))
        for feature, weight in zip(features, weights, strict=True):
            values += weight * columns[int(feature)]
        total += heights[_bars(values, edges, 0.0)]
    return total / len(surprise)


def _bars(values: Scores, edges: Scores, tol: float) -> npt.NDArray[np.intp]:
    """The bar of each value, as `numpy.digitize` closes them on the right; -1 outside of all."""
    last = len(edges) - 2
    bars = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, last)
    low = edges[0] - tol * (edges[1] - edges[0])
    high = edges[-1] + tol * (edges[-1] - edges[-2])
    return np.where((values >= low) & (values <= high), bars, -1)


def _summed(parts: Iterator[Scores], count: int) -> Scores:
    """Feature by feature, so that a row's sum is the same in any batch."""
    total = np.zeros(count)
    for part in parts:
        total += part
    return total
