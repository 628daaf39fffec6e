"""Isolation forest, and which features cut a row off early."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.ensemble import IsolationForest

from models.anomaly.columns import Matrix

Counts = npt.NDArray[np.intp]


def fit_forest(
    rows: Matrix, n_estimators: int, max_samples: int, max_features: float, seed: int
) -> Any:
    return IsolationForest(
        n_estimators=n_estimators,
        max_samples=min(max_samples, len(rows)),
        max_features=max_features,
        random_state=seed,
    ).fit(rows)


def path_parts(forest: Any, rows: Matrix) -> Matrix:
    """How much each feature adds to log2 of the score, [rows, features].

    The score is 2 ** (-length / c) with the mean length of the paths to a row's leaves. At each
    step of a path, the length to expect changes from that of the node's training rows to that of
    the child's; the feature which the node splits by is what changed it (Saabas, 2014). The parts
    of a row add up to log2 of its score, less that of an average training row.
    """
    parts = np.zeros(rows.shape)
    for tree, features in zip(forest.estimators_, forest.estimators_features_, strict=True):
        path = tree.decision_path(rows[:, features].astype(np.float32))
        parts[:, features] -= (path @ _steps(tree.tree_, len(features))).toarray()
    normal = _average_path_length(np.array([forest.max_samples_]))[0]
    return parts / (len(forest.estimators_) * max(float(normal), 1e-300))


def _steps(tree: Any, n_features: int) -> Any:
    """The change of the length to expect on the way into each node, sparse [nodes, features]."""
    length = _expected_lengths(tree)
    parents = np.flatnonzero(tree.children_left >= 0)
    children = np.concatenate([tree.children_left[parents], tree.children_right[parents]])
    parents = np.concatenate([parents, parents])
    change = length[children] - length[parents]
    shape = (len(length), n_features)
    return csr_matrix((change, (children, tree.feature[parents])), shape=shape)


def _expected_lengths(tree: Any) -> npt.NDArray[np.float64]:
    """By nodes: the mean length of the paths of the training rows that pass it."""
    left, right, samples = tree.children_left, tree.children_right, tree.n_node_samples
    depth = np.zeros(tree.node_count)
    inner_levels = []
    level = np.array([0])
    while len(level):
        inner = level[left[level] >= 0]
        inner_levels.append(inner)
        level = np.concatenate([left[inner], right[inner]])
        depth[level] = len(inner_levels)
    length = depth + _average_path_length(samples)
    for inner in reversed(inner_levels):
        low, high = left[inner], right[inner]
        together = samples[low] * length[low] + samples[high] * length[high]
        length[inner] = together / samples[inner]
    return length


def _average_path_length(samples: Counts) -> npt.NDArray[np.float64]:
    """c(n), of an unsuccessful search in a binary tree of n rows (Liu et al., ICDM 2008)."""
    n = np.maximum(samples.astype(np.float64), 3.0)
    many = 2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n
    return np.where(samples <= 1, 0.0, np.where(samples == 2, 1.0, many))
