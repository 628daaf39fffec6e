"""Every backend finds outliers as well as the bare library does, on scikit-learn's data sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.peers.bare_detectors import BARE, LOOSE
from benchmarks.peers.outlier_sets import SETS
from models.anomaly.backends_table import DESCRIPTIONS
from models.anomaly.fitted import FittedDetector
from models.types.anomaly import FitRequest
from tests.detector_samples import table_of

SEED, CONTAMINATION = 42, 0.1
OURS_ALONE = {"zscore", "mad"}
"""Rules for single features, which the library does not have for several."""


@pytest.fixture(scope="module", params=SETS)
def data(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return SETS[request.param]()


def scores(backend: str, rows: Any) -> Any:
    request = FitRequest("x", backend, table_of(rows), contamination=CONTAMINATION, seed=SEED)
    return FittedDetector.fit(request).model.raw(rows)


def test_every_backend_has_a_bare_counterpart() -> None:
    assert set(BARE) == set(DESCRIPTIONS) - OURS_ALONE


@pytest.mark.parametrize("backend", sorted(set(BARE) - set(LOOSE)))
def test_the_area_under_the_curve_is_that_of_the_bare_library(
    data: tuple[Any, Any], backend: str
) -> None:
    rows, truth = data
    bare = BARE[backend].fit(rows, SEED, CONTAMINATION)(rows)
    assert roc_auc_score(truth, scores(backend, rows)) == roc_auc_score(truth, bare)


@pytest.mark.parametrize("backend", LOOSE)
def test_what_differs_from_the_bare_library_finds_as_much(
    data: tuple[Any, Any], backend: str
) -> None:
    rows, truth = data
    bare = BARE[backend].fit(rows, SEED, CONTAMINATION)(rows)
    area = roc_auc_score(truth, scores(backend, rows))
    assert area > roc_auc_score(truth, bare) - 0.05
    assert area > 0.85


@pytest.mark.parametrize("backend", ["ecod", "copod", "hbos"])
def test_training_scores_are_those_of_the_bare_library(data: tuple[Any, Any], backend: str) -> None:
    rows, _ = data
    bare = BARE[backend].fit(rows, SEED, CONTAMINATION)(rows)
    assert np.allclose(scores(backend, rows), bare, rtol=1e-9)


def test_the_probability_is_pyods_unify() -> None:
    from pyod.models.hbos import HBOS
    from sklearn.preprocessing import StandardScaler

    rows, _ = SETS["wine"]()
    detector = FittedDetector.fit(FitRequest("x", "hbos", table_of(rows)))
    ours = detector.calibration.normalized(detector.model.raw(rows), "probability")
    scaled = StandardScaler().fit_transform(rows)
    theirs = HBOS().fit(scaled).predict_proba(scaled, method="unify")[:, 1]
    assert np.allclose(ours, theirs)
    assert np.ptp(ours) > 0.9
