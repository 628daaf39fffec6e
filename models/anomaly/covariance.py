"""The minimum covariance determinant (Rousseeuw and Van Driessen, 1999): a robust ellipse."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.covariance import EllipticEnvelope

from models.anomaly.columns import Matrix
from models.errors import InvalidInputError


def fit_mcd(rows: Matrix, support_fraction: float, seed: int) -> Any:
    """Raises InvalidInputError for too few rows."""
    if len(rows) <= rows.shape[1]:
        raise InvalidInputError("mcd needs more rows than features.", "data")
    envelope = EllipticEnvelope(support_fraction=support_fraction or None, random_state=seed)
    with warnings.catch_warnings():  # a singular covariance is used through its pseudo-inverse
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        return envelope.fit(rows)


def mcd_parts(envelope: Any, rows: Matrix) -> Matrix:
    """Parts of the squared Mahalanobis distance, [rows, features].

    (x - m)_j times (P (x - m))_j with the precision P; negative where the others explain x_j.
    """
    centred = rows - envelope.location_
    turned = np.stack([np.vecdot(centred, row) for row in envelope.get_precision()], axis=1)
    return np.asarray(centred * turned, dtype=np.float64)
