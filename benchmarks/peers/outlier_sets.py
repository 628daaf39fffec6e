"""scikit-learn's bundled data sets with one class as outliers: rows, and 1 for each outlier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine


def _set(load: Callable[..., Any], inliers: set[int], outliers: int) -> tuple[Any, Any]:
    """All rows of the classes `inliers`, then the first `outliers` rows of the others."""
    rows, classes = load(return_X_y=True)
    normal = np.isin(classes, list(inliers))
    odd = rows[~normal][:outliers]
    return np.concatenate([rows[normal], odd]), np.repeat([0, 1], [normal.sum(), len(odd)])


SETS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "breast cancer": lambda: _set(load_breast_cancer, {1}, 20),
    "wine": lambda: _set(load_wine, {1, 2}, 10),
    "digits": lambda: _set(load_digits, {0}, 20),
    "iris": lambda: _set(load_iris, {1, 2}, 10),
}
