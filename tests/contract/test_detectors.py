"""What every detector does: fit, score, store, reload."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from sklearn.covariance import EllipticEnvelope
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from models.anomaly import fitted
from models.anomaly.backends import BACKENDS
from models.anomaly.detectors import Detectors
from models.errors import (
    InvalidInputError,
)
from models.types.anomaly import AnomalyScoreRequest, AnomalyScores, ScoreNormalization, Table
from tests.detector_samples import (
    CONTAMINATION,
    INLIERS,
    OUTLIERS,
    ROWS,
    TABLE,
    again,
    fit,
    sample,
    score,
    table_of,
)

BARE: dict[str, Any] = {
    "isolation_forest": IsolationForest(random_state=42),
    "lof": make_pipeline(StandardScaler(), LocalOutlierFactor(novelty=True)),
    "one_class_svm": make_pipeline(StandardScaler(), OneClassSVM(nu=CONTAMINATION)),
    "elliptic_envelope": EllipticEnvelope(random_state=42),
}
"""The library's own classes with our defaults."""


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Detectors]:
    detectors = Detectors(root=tmp_path / "store", n_threads=2)
    yield detectors
    detectors.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_anomalies_score_high(library: Detectors, backend: str) -> None:
    info = fit(library, backend=backend)
    result = score(library)
    truth = [0] * INLIERS + [1] * OUTLIERS
    assert roc_auc_score(truth, result.raw) > 0.9
    assert roc_auc_score(truth, result.scores) > 0.9
    assert (info.version, info.backend, info.samples) == (1, backend, len(TABLE.rows))
    assert result.threshold == info.threshold
    assert all(0 <= value <= 1 for value in result.scores)
    assert 0 < sum(result.anomalous) <= 2 * OUTLIERS


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reloaded_detector_scores_the_same(library: Detectors, backend: str) -> None:
    fit(library, backend=backend)
    assert score(again(library)) == score(library)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_scores_the_same_alone_and_among_others(library: Detectors, backend: str) -> None:
    rows = sample(seed=1, features=100)
    fit(library, table=table_of(rows), backend=backend)
    tables = [table_of(rows), *(table_of(rows[i : i + 1]) for i in range(0, len(rows), 9))]
    tables += [table_of(rows[3:10]), table_of(np.asfortranarray(rows[::-1]))]
    requests = [AnomalyScoreRequest("pump", table) for table in tables]
    together = library.score(requests)
    assert together == [library.score([request])[0] for request in requests]
    everything = together[0]
    assert isinstance(everything, AnomalyScores)
    for index, alone in zip(range(0, len(rows), 9), together[1:-2], strict=True):
        assert isinstance(alone, AnomalyScores)
        assert list(alone.raw) == [everything.raw[index]]
        assert list(alone.scores) == [everything.scores[index]]
    assert isinstance(together[-1], AnomalyScores)
    assert together[-1].raw == everything.raw[::-1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_do_not_change_scores(
    library: Detectors, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(library, backend=backend)
    expected = score(library)
    monkeypatch.setattr(fitted, "ROWS_PER_THREAD", 10)
    assert score(library) == expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_seed_fits_the_same(library: Detectors, backend: str) -> None:
    fit(library, "one", backend=backend, seed=3)
    fit(library, "two", backend=backend, seed=3)
    assert score(library, "one").raw == score(library, "two").raw


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("extreme", [1e308, -1e308, 1e-300])
def test_scores_are_finite_numbers(library: Detectors, backend: str, extreme: float) -> None:
    """Also where training data has a constant column and duplicates."""
    rows = np.concatenate([ROWS, ROWS[:50]])
    rows[:, 1] = 3.0
    fit(library, table=table_of(rows), backend=backend)
    for normalization in get_args(ScoreNormalization):
        result = score(
            library, table=Table(((extreme,) * 4, (0.0,) * 4)), normalization=normalization
        )
        assert all(math.isfinite(value) for value in (*result.scores, *result.raw))


@pytest.mark.parametrize("backend", BACKENDS)
def test_few_or_equal_rows_are_fitted_or_refused(library: Detectors, backend: str) -> None:
    huge = [[1e308, 1.0], *([float(place), -1e308] for place in range(20))]
    for rows in ([[1.0, 2.0], [2.0, 1.0]], [[5.0, 5.0]] * 9, [[1.0]] * 3 + [[2.0]], huge):
        try:
            fit(library, table=table_of(rows), backend=backend)
        except InvalidInputError:
            continue
        assert all(math.isfinite(value) for value in score(library, table=table_of(rows)).raw)
    with pytest.raises(InvalidInputError, match="at least 2 rows"):
        fit(library, table=Table(((1.0, 2.0),)), backend=backend)


@pytest.mark.parametrize("backend", BARE)
def test_scores_are_those_of_the_bare_library(library: Detectors, backend: str) -> None:
    """On scikit-learn's breast cancer data: benign rows and 20 malignant ones."""
    data = load_breast_cancer()
    rows = np.concatenate([data.data[data.target == 1], data.data[data.target == 0][:20]])
    truth = [0] * (len(rows) - 20) + [1] * 20
    fit(library, table=table_of(rows), backend=backend, seed=42)
    ours = score(library, table=table_of(rows)).raw
    bare = -BARE[backend].fit(rows).score_samples(rows)
    assert np.allclose(ours, bare, rtol=1e-9)
    assert roc_auc_score(truth, ours) == roc_auc_score(truth, bare)
    assert roc_auc_score(truth, ours) > 0.9


@pytest.mark.parametrize("backend", ["isolation_forest", "elliptic_envelope"])
def test_the_threshold_is_that_of_the_bare_library(library: Detectors, backend: str) -> None:
    bare = BARE[backend].set_params(contamination=CONTAMINATION).fit(ROWS)
    fit(library, backend=backend)
    assert list(score(library).anomalous) == (bare.predict(ROWS) == -1).tolist()
    assert sum(score(library).anomalous) == CONTAMINATION * len(ROWS)


SCORE_AFTER_KILL = """
import os, signal, sys
from pathlib import Path
from models.anomaly.detectors import Detectors
from models.types.anomaly import AnomalyScoreRequest, FitRequest, Table
rows = tuple((float(i % 7), float(i % 5), float(i)) for i in range(100))
library = Detectors(root=Path(sys.argv[1]), n_threads=1)
library.fit(FitRequest("pump", "isolation_forest", Table(rows)))
print(repr(library.score([AnomalyScoreRequest("pump", Table(((1.0, 2.0, 50.5),)))])), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_scores_survive_the_death_of_the_process(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCORE_AFTER_KILL, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert run.returncode == -9, run.stderr
    library = Detectors(root=tmp_path, n_threads=1)
    (result,) = library.score([AnomalyScoreRequest("pump", Table(((1.0, 2.0, 50.5),)))])
    assert repr([result]) == run.stdout.strip()
    library.close()
