"""Neighbours: the local outlier factor and the distance to the nearest rows.

The tree search gives each row the same distances in any batch; the brute one does not.
"""

from __future__ import annotations

import warnings
from typing import Any

from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix


def fit_lof(rows: Matrix, n_neighbors: int) -> tuple[Any, Scores]:
    lof = LocalOutlierFactor(
        n_neighbors=min(n_neighbors, len(rows) - 1), algorithm="kd_tree", novelty=True
    )
    with warnings.catch_warnings():  # duplicates may make the factors useless: so do the scores say
        warnings.simplefilter("ignore", UserWarning)
        lof.fit(rows)
    return lof, -lof.negative_outlier_factor_


def fit_knn(rows: Matrix, n_neighbors: int, method: str) -> tuple[Any, Scores]:
    """Training rows are not their own neighbours."""
    index = NearestNeighbors(n_neighbors=min(n_neighbors, len(rows) - 1), algorithm="kd_tree")
    index.fit(rows)
    return index, _distance(index.kneighbors()[0], method)


def score_knn(index: Any, rows: Matrix, method: str) -> Scores:
    return _distance(index.kneighbors(rows)[0], method)


def _distance(neighbours: Matrix, method: str) -> Scores:
    return neighbours.mean(axis=1) if method == "mean" else neighbours[:, -1].copy()
