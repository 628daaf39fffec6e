"""Rows with known outliers, and short ways to fit and score them."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.anomaly.detectors import Detectors
from models.errors import ModelError
from models.types.anomaly import AnomalyScoreRequest, AnomalyScores, DetectorInfo, FitRequest, Table

CONTAMINATION = 0.05
INLIERS, OUTLIERS = 190, 10


def table_of(rows: Any) -> Table:
    return Table(tuple(tuple(row) for row in np.asarray(rows).tolist()))


def sample(seed: int = 0, features: int = 4) -> Any:
    """Correlated inliers, then outliers far away in every direction."""
    source = np.random.default_rng(seed)
    mixing = source.normal(size=(features, features))
    inliers = source.normal(size=(INLIERS, features)) @ mixing
    outliers = source.normal(size=(OUTLIERS, features)) * 8
    return np.concatenate([inliers, outliers])


ROWS = sample()
TABLE = table_of(ROWS)


def again(library: Detectors) -> Detectors:
    """Another process's view of the same store: nothing cached."""
    return Detectors(root=library._store.storage.root, n_threads=1)


def fit(
    library: Detectors, name: str = "pump", table: Table = TABLE, **options: Any
) -> DetectorInfo:
    options = {"backend": "ecod", "contamination": CONTAMINATION, **options}
    return library.fit(FitRequest(name, table=table, **options))


def score(
    library: Detectors, name: str = "pump", table: Table = TABLE, **options: Any
) -> AnomalyScores:
    (result,) = library.score([AnomalyScoreRequest(name, table, **options)])
    if isinstance(result, ModelError):
        raise result
    return result
