"""One backend fitted to a matrix of features, before anything says what its scores mean."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.preprocessing import RobustScaler, StandardScaler

from models.anomaly.backends import BACKENDS, State
from models.anomaly.backends_table import DESCRIPTIONS
from models.anomaly.calibration import Scores, bounded
from models.anomaly.columns import MAX_MAGNITUDE, Matrix
from models.errors import InvalidInputError, ModelError

LOGGER = logging.getLogger(__name__)

MIN_ROWS = 2


@dataclass(frozen=True, slots=True)
class Scaling:
    """(rows - center) / scale; both are float64 [features]."""

    center: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    @staticmethod
    def of(rows: Matrix, scaler: str) -> Scaling | None:
        """As scikit-learn's `StandardScaler` and `RobustScaler`; None for the scaler "none"."""
        if scaler == "standard":
            standard = StandardScaler().fit(rows)
            return Scaling(standard.mean_, standard.scale_)
        if scaler == "robust":
            robust = RobustScaler().fit(rows)
            return Scaling(robust.center_, robust.scale_)
        return None

    def apply(self, rows: Matrix) -> Matrix:
        return np.clip((rows - self.center) / self.scale, -MAX_MAGNITUDE, MAX_MAGNITUDE)


@dataclass(frozen=True, slots=True)
class Model:
    """Immutable, and safe to score with from many threads. `values` are checked parameters."""

    backend: str
    scaling: Scaling | None
    state: State
    values: Mapping[str, Any]

    @staticmethod
    def fit(backend: str, rows: Matrix, values: Mapping[str, Any]) -> tuple[Model, Scores]:
        """With the raw scores of the training rows. Raises InvalidInputError."""
        check_rows(len(rows), backend)
        with np.errstate(all="ignore"):
            scaling = Scaling.of(rows, values["scaler"])
            scaled = scaling.apply(rows) if scaling else rows
            state, training = _fit(backend, scaled, values)
        return Model(backend, scaling, state, values), bounded(training)

    def raw(self, rows: Matrix) -> Scores:
        """Raw scores; the rows beside a row change nothing. Raises ModelError."""
        with np.errstate(all="ignore"):
            raw = BACKENDS[self.backend].score(self.state, self._scaled(rows), self.values)
        if np.isnan(raw).any():
            raise ModelError("The detector has no score for a row.")
        return bounded(raw)

    def parts(self, rows: Matrix) -> Matrix | None:
        """What each feature adds to the scores, [rows, features]; None where it cannot be told."""
        parts = BACKENDS[self.backend].parts
        if parts is None:
            return None
        with np.errstate(all="ignore"):
            found = parts(self.state, self._scaled(rows), self.values)
        if np.isnan(found).any():
            raise ModelError("The detector has no explanation for a row.")
        return bounded(found)

    def _scaled(self, rows: Matrix) -> Matrix:
        return self.scaling.apply(rows) if self.scaling else rows


def check_rows(count: int, backend: str) -> None:
    """Raises InvalidInputError for too few and too many."""
    if count < MIN_ROWS:
        raise InvalidInputError(f"A fit needs at least {MIN_ROWS} rows.", "data")
    most = DESCRIPTIONS[backend].max_rows
    if count > most:
        message = f"{backend} fits at most {most} rows; {count} were sent."
        raise InvalidInputError(message, "data")


def _fit(backend: str, rows: Matrix, values: Mapping[str, Any]) -> tuple[State, Scores]:
    """Raises InvalidInputError, also when the library cannot fit these rows."""
    refusal = InvalidInputError(f"{backend} cannot be fitted to these rows.", "data")
    try:
        state, training = BACKENDS[backend].fit(rows, values)
    except (ValueError, np.linalg.LinAlgError, FloatingPointError) as error:
        LOGGER.info("a fit has failed", exc_info=error)
        raise refusal from error
    if not np.isfinite(bounded(training)).all():
        raise refusal
    return state, training
