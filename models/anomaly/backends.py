"""How each backend is fitted and scored; `backends_table.py` describes them.

Every backend turns a matrix of rows into a state and raw training scores, and a state and rows into
raw scores; a high score means an anomaly. A state is a scikit-learn estimator or a dictionary of
arrays and estimators: what the artefact store can keep without pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from models.anomaly import (
    autoencoders,
    clusters,
    covariance,
    ensemble,
    forest,
    histograms,
    neighbours,
    statistical,
    tails,
)
from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix

State = Any
Values = Mapping[str, Any]
"""Checked parameters by name, with `contamination` and `seed` of the request."""


@dataclass(frozen=True, slots=True)
class Backend:
    """`state_type` is what a stored state must turn out to be.

    `parts` gives what each feature adds to the scores, [rows, features]; None where that can only
    be found by asking for scores.
    """

    fit: Callable[[Matrix, Values], tuple[State, Scores]]
    score: Callable[[State, Matrix, Values], Scores]
    state_type: type = dict
    parts: Callable[[State, Matrix, Values], Matrix] | None = None


def _of_state(
    learn: Callable[[Matrix, Values], State],
    score: Callable[[State, Matrix, Values], Scores],
    parts: Callable[[State, Matrix, Values], Matrix] | None = None,
    state_type: type = dict,
) -> Backend:
    """A backend whose training rows are scored as any others."""

    def fit(rows: Matrix, values: Values) -> tuple[State, Scores]:
        state = learn(rows, values)
        return state, score(state, rows, values)

    return Backend(fit, score, state_type, parts)


def _score_samples(estimator: Any, rows: Matrix, values: Values) -> Scores:
    del values
    return -np.asarray(estimator.score_samples(rows), dtype=np.float64)


def _forest(rows: Matrix, values: Values) -> Any:
    sizes = (values["n_estimators"], values["max_samples"], values["max_features"])
    return forest.fit_forest(rows, *sizes, seed=values["seed"])


def _one_class_svm(rows: Matrix, values: Values) -> Any:
    return OneClassSVM(
        kernel=values["kernel"],
        nu=values["nu"] or values["contamination"],
        gamma=values["gamma"] or "scale",
        degree=values["degree"],
    ).fit(rows)


def _network(rows: Matrix, values: Values) -> State:
    training = autoencoders.Training(
        epochs=values["epochs"],
        batch_size=values["batch_size"],
        learning_rate=values["learning_rate"],
        patience=values["patience"],
        seed=values["seed"],
        trimmed=values["contamination"],
        beta=values.get("beta"),
    )
    return autoencoders.fit_autoencoder(rows, values["hidden"], values["latent"], training)


_NETWORK = _of_state(
    _network,
    lambda state, rows, _: autoencoders.score_autoencoder(state, rows),
    lambda state, rows, _: autoencoders.autoencoder_parts(state, rows),
)


def _deviations(center: str) -> Backend:
    return _of_state(
        lambda rows, _: statistical.fit_deviations(rows, center),
        lambda state, rows, _: statistical.score_deviations(state, rows),
        lambda state, rows, _: statistical.deviations(state, rows),
    )


BACKENDS: Mapping[str, Backend] = {
    "isolation_forest": _of_state(
        _forest,
        _score_samples,
        lambda state, rows, _: forest.path_parts(state, rows),
        IsolationForest,
    ),
    "one_class_svm": _of_state(_one_class_svm, _score_samples, state_type=OneClassSVM),
    "local_outlier_factor": Backend(
        lambda rows, values: neighbours.fit_lof(rows, values["n_neighbors"]),
        _score_samples,
        LocalOutlierFactor,
    ),
    "knn": Backend(
        lambda rows, values: neighbours.fit_knn(rows, values["n_neighbors"], values["method"]),
        lambda state, rows, values: neighbours.score_knn(state, rows, values["method"]),
        NearestNeighbors,
    ),
    "ecod": _of_state(
        lambda rows, _: tails.fit_tails(rows),
        lambda state, rows, _: tails.score_ecod(state, rows),
        lambda state, rows, _: tails.ecod_parts(state, rows),
    ),
    "copod": _of_state(
        lambda rows, _: tails.fit_tails(rows),
        lambda state, rows, _: tails.score_copod(state, rows),
        lambda state, rows, _: tails.copod_parts(state, rows),
    ),
    "hbos": _of_state(
        lambda rows, values: histograms.fit_hbos(rows, values["n_bins"]),
        lambda state, rows, values: histograms.score_hbos(
            state, rows, values["alpha"], values["tol"]
        ),
        lambda state, rows, values: histograms.hbos_parts(
            state, rows, values["alpha"], values["tol"]
        ),
    ),
    "loda": _of_state(
        lambda rows, values: histograms.fit_loda(
            rows, values["n_bins"], values["n_random_cuts"], values["seed"]
        ),
        lambda state, rows, _: histograms.score_loda(state, rows),
    ),
    "mcd": _of_state(
        lambda rows, values: covariance.fit_mcd(rows, values["support_fraction"], values["seed"]),
        _score_samples,
        lambda state, rows, _: covariance.mcd_parts(state, rows),
        EllipticEnvelope,
    ),
    "pca": _of_state(
        lambda rows, values: statistical.fit_pca(rows, values["explained_variance"]),
        lambda state, rows, _: statistical.score_pca(state, rows),
        lambda state, rows, _: statistical.pca_errors(state, rows),
    ),
    "cblof": _of_state(
        lambda rows, values: clusters.fit_clusters(
            rows, values["n_clusters"], values["alpha"], values["beta"], values["seed"]
        ),
        lambda state, rows, _: clusters.score_clusters(state, rows),
    ),
    "autoencoder": _NETWORK,
    "vae": _NETWORK,
    "suod": Backend(
        ensemble.fit_ensemble,
        lambda state, rows, values: ensemble.score_ensemble(state, rows, values["combination"]),
    ),
    "zscore": _deviations("mean"),
    "mad": _deviations("median"),
}
