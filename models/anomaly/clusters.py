"""CBLOF (He, Xu and Deng, 2003): the distance to large clusters, with PyOD's clusters."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix

Arrays = dict[str, npt.NDArray[np.float64]]


def fit_clusters(rows: Matrix, n_clusters: int, alpha: float, beta: float, seed: int) -> Arrays:
    """`centers` [clusters, features]; `large` is 1 for large clusters, 0 for small ones.

    All are large where none can be told apart by `alpha` and `beta`.
    """
    from pyod.models.cblof import CBLOF

    detector = CBLOF(
        n_clusters=min(n_clusters, len(np.unique(rows, axis=0))),
        alpha=alpha,
        beta=beta,
        random_state=seed,
    )
    with warnings.catch_warnings(), threadpool_limits(limits=1, user_api="openmp"):
        # one thread: k-means adds up what its threads found in the order in which they end
        warnings.simplefilter("ignore")
        try:
            detector.fit(rows)
            large = detector.large_cluster_labels_
        except ValueError:
            if not hasattr(detector, "cluster_labels_"):
                raise
            large = np.arange(detector.n_clusters_)
    centers = detector.clustering_estimator_.cluster_centers_
    return {
        "centers": np.ascontiguousarray(centers),
        "large": np.isin(np.arange(len(centers)), large).astype(np.float64),
    }


def score_clusters(state: Arrays, rows: Matrix) -> Scores:
    """The distance to the own cluster's centre, or to the next large one from a small cluster."""
    distances = np.zeros((len(state["centers"]), len(rows)))
    for values, centers in zip(rows.T, state["centers"].T, strict=True):
        distances += (values - centers[:, np.newaxis]) ** 2
    own = np.argmin(distances, axis=0)
    in_large = state["large"][own] > 0
    to_large = distances[state["large"] > 0].min(axis=0)
    squared = np.where(in_large, distances[own, np.arange(len(rows))], to_large)
    return np.asarray(np.sqrt(squared), dtype=np.float64)
