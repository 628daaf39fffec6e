"""Neighbours: the local outlier factor and the distance to the nearest rows.

The tree search gives each row the same distances in any batch; the brute one, which is faster with
many features, does not. Larger leaves are the next best there.
"""

from __future__ import annotations

import warnings
from typing import Any

from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix

FEW_FEATURES = 8
"""A tree tells rows apart; with more features it hardly does, and looks into most of its leaves."""


def fit_lof(rows: Matrix, n_neighbors: int) -> tuple[Any, Scores]:
    lof = LocalOutlierFactor(
        n_neighbors=min(n_neighbors, len(rows) - 1),
        algorithm="kd_tree",
        leaf_size=_leaf_size(rows),
        novelty=True,
    )
    with warnings.catch_warnings():  # duplicates may make the factors useless: so do the scores say
        warnings.simplefilter("ignore", UserWarning)
        lof.fit(rows)
    return lof, -lof.negative_outlier_factor_


def fit_knn(rows: Matrix, n_neighbors: int, method: str) -> tuple[Any, Scores]:
    """Training rows are not their own neighbours."""
    index = NearestNeighbors(
        n_neighbors=min(n_neighbors, len(rows) - 1),
        algorithm="kd_tree",
        leaf_size=_leaf_size(rows),
    )
    index.fit(rows)
    return index, _distance(index.kneighbors()[0], method)


def score_knn(index: Any, rows: Matrix, method: str) -> Scores:
    return _distance(index.kneighbors(rows)[0], method)


def _distance(neighbours: Matrix, method: str) -> Scores:
    return neighbours.mean(axis=1) if method == "mean" else neighbours[:, -1].copy()


def _leaf_size(rows: Matrix) -> int:
    return 30 if rows.shape[1] <= FEW_FEATURES else 200
