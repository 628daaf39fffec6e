"""SUOD (Zhao et al., MLSys 2021): detectors that differ, on one scale, combined.

The ensemble of PyOD's `SUOD` without its approximations (random projections and regressors in place
of slow detectors), whose package is no longer kept up: every member is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from models.anomaly import forest, histograms, neighbours, tails
from models.anomaly.calibration import Scores, bounded
from models.anomaly.columns import Matrix

State = dict[str, Any]

HBOS = {"alpha": 0.1, "tol": 0.5}


def fit_ensemble(rows: Matrix, values: Mapping[str, Any]) -> tuple[State, Scores]:
    """Four members with the mean and the deviation of each one's training scores."""
    lof, lof_scores = neighbours.fit_lof(rows, values["n_neighbors"])
    members = {
        "lof": lof,
        "hbos": histograms.fit_hbos(rows, values["n_bins"]),
        "copod": tails.fit_tails(rows),
        "forest": forest.fit_forest(rows, values["n_estimators"], 256, 1.0, values["seed"]),
    }
    scores = [lof_scores, *list(_member_scores(members, rows))[1:]]
    state: State = {
        "members": members,
        "means": np.array([np.mean(bounded(part)) for part in scores]),
        "deviations": np.array([np.std(bounded(part)) or 1.0 for part in scores]),
    }
    return state, _combined(state, scores, values["combination"])


def score_ensemble(state: State, rows: Matrix, combination: str) -> Scores:
    return _combined(state, list(_member_scores(state["members"], rows)), combination)


def _member_scores(members: Mapping[str, Any], rows: Matrix) -> Iterator[Scores]:
    yield -np.asarray(members["lof"].score_samples(rows), dtype=np.float64)
    yield histograms.score_hbos(members["hbos"], rows, **HBOS)
    yield tails.score_copod(members["copod"], rows)
    yield -np.asarray(members["forest"].score_samples(rows), dtype=np.float64)


def _combined(state: State, scores: list[Scores], combination: str) -> Scores:
    """The mean or the largest of the members' z-scores; added one by one, as for one row alone."""
    total = np.zeros(len(scores[0]))
    largest = np.full(len(scores[0]), -np.inf)
    for part, mean, deviation in zip(scores, state["means"], state["deviations"], strict=True):
        scaled = bounded((bounded(part) - mean) / deviation)
        total += scaled
        np.maximum(largest, scaled, out=largest)
    return total / len(scores) if combination == "average" else largest
