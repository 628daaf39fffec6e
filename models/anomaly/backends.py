"""The detectors a client may fit, by name, with their parameters and bounds.

Every backend turns a matrix of rows into a state and raw training scores, and a state and rows into
raw scores; a high score means an anomaly. A state is a scikit-learn estimator or a dictionary of
arrays: what the artefact store can keep without pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from models.anomaly import statistical
from models.anomaly.calibration import Scores
from models.anomaly.parameters import Parameter
from models.anomaly.tables import Matrix
from models.errors import InvalidInputError

State = Any
Values = Mapping[str, Any]
"""Checked parameters by name, with `contamination` and `seed` of the request."""

SCALER = Parameter("scaler", "standard", choices=("none", "standard", "robust"))
UNSCALED = Parameter("scaler", "none", choices=("none", "standard", "robust"))


@dataclass(frozen=True, slots=True)
class Backend:
    """`state_type` is what a stored state must turn out to be."""

    fit: Callable[[Matrix, Values], tuple[State, Scores]]
    score: Callable[[State, Matrix, Values], Scores]
    state_type: type
    parameters: tuple[Parameter, ...] = (UNSCALED,)
    max_rows: int = 1_000_000

    def values(self, given: Mapping[str, object]) -> dict[str, Any]:
        """All parameters, checked, defaults filled in. Raises InvalidInputError."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                names = ", ".join(sorted(known))
                message = f"There is no parameter {name[:64]!r}; there are: {names}."
                raise InvalidInputError(message, "parameters")
        return {
            name: parameter.checked(given[name]) if name in given else parameter.default
            for name, parameter in known.items()
        }


def _isolation_forest(rows: Matrix, values: Values) -> tuple[State, Scores]:
    forest = IsolationForest(
        n_estimators=values["n_estimators"],
        max_samples=min(values["max_samples"], len(rows)),
        max_features=values["max_features"],
        random_state=values["seed"],
    ).fit(rows)
    return forest, _score_samples(forest, rows, values)


def _lof(rows: Matrix, values: Values) -> tuple[State, Scores]:
    """The tree search gives each row the same distances in any batch; the brute one does not."""
    lof = LocalOutlierFactor(
        n_neighbors=min(values["n_neighbors"], len(rows) - 1), algorithm="kd_tree", novelty=True
    )
    with warnings.catch_warnings():  # duplicates may make the factors useless: so do the scores say
        warnings.simplefilter("ignore", UserWarning)
        lof.fit(rows)
    return lof, -lof.negative_outlier_factor_


def _one_class_svm(rows: Matrix, values: Values) -> tuple[State, Scores]:
    svm = OneClassSVM(
        kernel=values["kernel"],
        nu=values["nu"] or values["contamination"],
        gamma=values["gamma"] or "scale",
        degree=values["degree"],
    ).fit(rows)
    return svm, _score_samples(svm, rows, values)


def _elliptic_envelope(rows: Matrix, values: Values) -> tuple[State, Scores]:
    if len(rows) <= rows.shape[1]:
        raise InvalidInputError("elliptic_envelope needs more rows than features.", "data")
    envelope = EllipticEnvelope(
        support_fraction=values["support_fraction"] or None, random_state=values["seed"]
    )
    with warnings.catch_warnings():  # a singular covariance is used through its pseudo-inverse
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        envelope.fit(rows)
    return envelope, _score_samples(envelope, rows, values)


def _score_samples(estimator: Any, rows: Matrix, values: Values) -> Scores:
    del values
    return -np.asarray(estimator.score_samples(rows), dtype=np.float64)


def _knn(rows: Matrix, values: Values) -> tuple[State, Scores]:
    """Training rows are not their own neighbours."""
    n_neighbors = min(values["n_neighbors"], len(rows) - 1)
    index = NearestNeighbors(n_neighbors=n_neighbors, algorithm="kd_tree").fit(rows)
    return index, _distance(index.kneighbors()[0], values)


def _score_knn(index: Any, rows: Matrix, values: Values) -> Scores:
    return _distance(index.kneighbors(rows)[0], values)


def _distance(neighbours: Matrix, values: Values) -> Scores:
    return neighbours.mean(axis=1) if values["method"] == "mean" else neighbours[:, -1].copy()


Learn = Callable[[Matrix, Values], statistical.Arrays]
Score = Callable[[statistical.Arrays, Matrix, Values], Scores]


def _statistical(learn: Learn, score: Score, *parameters: Parameter) -> Backend:
    def fit(rows: Matrix, values: Values) -> tuple[State, Scores]:
        state = learn(rows, values)
        return state, score(state, rows, values)

    return Backend(fit, score, dict, parameters)


_LOF = Backend(
    _lof,
    _score_samples,
    LocalOutlierFactor,
    (SCALER, Parameter("n_neighbors", 20, low=1, high=1000)),
    max_rows=200_000,
)

BACKENDS: Mapping[str, Backend] = {
    "isolation_forest": Backend(
        _isolation_forest,
        _score_samples,
        IsolationForest,
        (
            UNSCALED,
            Parameter("n_estimators", 100, low=1, high=1000),
            Parameter("max_samples", 256, low=2, high=100_000),
            Parameter("max_features", 1.0, low=0.01, high=1.0),
        ),
    ),
    "lof": _LOF,
    "local_outlier_factor": _LOF,
    "one_class_svm": Backend(
        _one_class_svm,
        _score_samples,
        OneClassSVM,
        (
            SCALER,
            Parameter("kernel", "rbf", choices=("rbf", "linear", "poly", "sigmoid")),
            Parameter("nu", 0.0, low=0.0, high=1.0),
            Parameter("gamma", 0.0, low=0.0, high=1e6),
            Parameter("degree", 3, low=1, high=10),
        ),
        max_rows=50_000,
    ),
    "elliptic_envelope": Backend(
        _elliptic_envelope,
        _score_samples,
        EllipticEnvelope,
        (UNSCALED, Parameter("support_fraction", 0.0, low=0.0, high=1.0)),
        max_rows=200_000,
    ),
    "knn": Backend(
        _knn,
        _score_knn,
        NearestNeighbors,
        (
            SCALER,
            Parameter("n_neighbors", 5, low=1, high=1000),
            Parameter("method", "largest", choices=("largest", "mean")),
        ),
        max_rows=200_000,
    ),
    "pca": _statistical(
        lambda rows, values: statistical.fit_pca(rows, values["explained_variance"]),
        lambda state, rows, _: statistical.score_pca(state, rows),
        SCALER,
        Parameter("explained_variance", 0.9, low=0.01, high=1.0),
    ),
    "ecod": _statistical(
        lambda rows, _: statistical.fit_ecod(rows),
        lambda state, rows, _: statistical.score_ecod(state, rows),
        UNSCALED,
    ),
    "hbos": _statistical(
        lambda rows, values: statistical.fit_hbos(rows, values["n_bins"]),
        lambda state, rows, values: statistical.score_hbos(state, rows, values["regularizer"]),
        UNSCALED,
        Parameter("n_bins", 10, low=2, high=1000),
        Parameter("regularizer", 0.1, low=1e-6, high=1.0),
    ),
    "zscore": _statistical(
        lambda rows, _: statistical.fit_deviations(rows, "mean"),
        lambda state, rows, _: statistical.score_deviations(state, rows),
        UNSCALED,
    ),
    "mad": _statistical(
        lambda rows, _: statistical.fit_deviations(rows, "median"),
        lambda state, rows, _: statistical.score_deviations(state, rows),
        UNSCALED,
    ),
}
"""`nu` 0 is the contamination, `gamma` 0 is "scale", `support_fraction` 0 the library's choice."""


def backend_of(name: str) -> Backend:
    """Raises InvalidInputError."""
    backend = BACKENDS.get(name)
    if backend is None:
        names = ", ".join(sorted(BACKENDS))
        raise InvalidInputError(
            f"There is no backend {name[:64]!r}; there are: {names}.", "backend"
        )
    return backend
