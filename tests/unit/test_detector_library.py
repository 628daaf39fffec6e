"""The library of detectors: what it takes, refuses and reports, whatever the backend."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.anomaly import choosing, fitted
from models.anomaly.calibration import Scores
from models.anomaly.detectors import Detectors
from models.anomaly.tables import Matrix
from models.errors import (
    InvalidInputError,
    ModelNotFoundError,
)
from models.types.anomaly import AnomalyScoreRequest, AnomalyScores, DetectorInfo, Selection, Table
from tests.detector_samples import (
    ROWS,
    TABLE,
    again,
    fit,
    score,
    table_of,
)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Detectors]:
    detectors = Detectors(root=tmp_path / "store", n_threads=2)
    yield detectors
    detectors.close()


def test_what_a_fit_reports_is_what_is_stored(library: Detectors) -> None:
    info = fit(library, schema=(("0", "numeric"),), normalization="zscore", parameters=())
    assert isinstance(info, DetectorInfo)
    assert info.features == ("0", "1", "2", "3")
    assert info.schema == tuple((name, "numeric") for name in "0123")
    assert info.normalization == "zscore"
    assert info.parameters == (("scaler", "none"),)
    assert (info.missing, info.selection) == ("error", None)
    assert info.size_bytes > 0
    assert info.created > 1_700_000_000
    assert info.fit_seconds > 0
    assert library.get("pump") == again(library).get("pump") == info
    assert library.list() == [info]


def test_a_refit_replaces_everything(library: Detectors) -> None:
    fit(library, backend="isolation_forest")
    before = score(library)
    shifted = table_of(ROWS[:, :2] + 100)
    info = fit(library, table=shifted, backend="zscore", contamination=0.2)
    assert (info.version, info.backend, len(info.features)) == (2, "zscore", 2)
    after = score(library, table=shifted)
    assert after.version == 2 > before.version
    assert after.threshold != before.threshold
    with pytest.raises(InvalidInputError, match="4 columns"):
        score(library)
    assert len(library.list()) == 1


def test_normalisations_agree_on_the_order_and_the_anomalies(library: Detectors) -> None:
    fit(library)
    results = [score(library, normalization=name) for name in ("raw", "zscore", "standardization")]
    assert results[0].scores == results[0].raw
    assert len({result.anomalous for result in results}) == 1
    assert len({tuple(np.argsort(result.scores, kind="stable")) for result in results}) == 1
    for result in results:
        assert result.anomalous == tuple(value > result.threshold for value in result.scores)


def test_probabilities_never_fall_and_agree_on_the_anomalies(library: Detectors) -> None:
    fit(library)
    raw, result = score(library, normalization="raw"), score(library, normalization="probability")
    in_order = np.asarray(result.scores)[np.argsort(raw.scores)]
    assert (np.diff(in_order) >= 0).all()
    assert (in_order.min(), in_order.max()) == (0.0, pytest.approx(1.0, abs=1e-3))
    assert result.anomalous == raw.anomalous
    assert 0.5 < result.threshold < 1


def test_a_given_threshold_decides_and_zero_is_one(library: Detectors) -> None:
    fit(library)
    assert score(library, threshold=0.0).anomalous == (True,) * len(TABLE.rows)
    assert score(library, threshold=1.0).anomalous == (False,) * len(TABLE.rows)
    with pytest.raises(InvalidInputError, match="threshold"):
        score(library, threshold=math.nan)


def test_the_order_of_keys_does_not_matter(library: Detectors) -> None:
    names = ("b", "a", "d", "c")
    fit(library, table=Table(TABLE.rows, names))
    turned = Table(tuple(row[::-1] for row in TABLE.rows), names[::-1])
    assert score(library, table=turned) == score(library, table=Table(TABLE.rows, names))
    assert library.get("pump").features == ("a", "b", "c", "d")


def test_categories_survive_a_restart(library: Detectors) -> None:
    rows = tuple((f"c{i % 3}", i % 2 == 0, float(i), f"user {i}") for i in range(60))
    table = Table(rows, ("kind", "on", "value", "user"))
    schema = (("user", "frequency"), ("kind", "onehot"))
    info = fit(library, table=table, schema=schema, backend="hbos")
    assert dict(info.schema) == {
        "kind": "onehot",
        "on": "binary",
        "user": "frequency",
        "value": "numeric",
    }
    unknown = Table((("new", False, 3.0, "nobody"),), table.columns)
    assert score(again(library), table=unknown) == score(library, table=unknown)
    assert score(again(library), table=table) == score(library, table=table)


@pytest.mark.parametrize("scaler", ["none", "standard", "robust"])
def test_scalers_learn_from_the_training_rows(library: Detectors, scaler: str) -> None:
    fit(library, backend="knn", parameters=(("scaler", scaler), ("n_neighbors", 3)))
    spread = np.asarray(score(library).raw)
    fit(
        library,
        "big",
        table_of(ROWS * 1000),
        backend="knn",
        parameters=(("scaler", scaler), ("n_neighbors", 3)),
    )
    big = np.asarray(score(library, "big", table_of(ROWS * 1000)).raw)
    assert np.allclose(big, spread * (1000 if scaler == "none" else 1))


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"backend": "nope"}, "backend"),
        ({"contamination": 0.0}, "contamination"),
        ({"contamination": 0.51}, "contamination"),
        ({"contamination": math.nan}, "contamination"),
        ({"normalization": "sigmoid"}, "normalization"),
        ({"schema": (("9", "numeric"),)}, "schema"),
        ({"schema": (("0", "pickle"),)}, "schema"),
        ({"parameters": (("n_estimators", 5),)}, "parameters.n_estimators"),
        ({"missing": "drop"}, "missing"),
        ({"backend": "auto", "parameters": (("scaler", "none"),)}, "parameters"),
        ({"backend": "hbos", "parameters": (("n_bins", 1),)}, "parameters.n_bins"),
        ({"backend": "hbos", "parameters": (("n_bins", 2.5),)}, "parameters.n_bins"),
        ({"backend": "hbos", "parameters": (("n_bins", "5"),)}, "parameters.n_bins"),
        ({"backend": "hbos", "parameters": (("n_bins", True),)}, "parameters.n_bins"),
        ({"backend": "knn", "parameters": (("scaler", "max"),)}, "parameters.scaler"),
        ({"table": Table(())}, "data"),
        ({"table": Table(((1.0, 2.0), (1.0,)))}, "data.1"),
        ({"table": Table(((1.0,), (math.nan,)))}, "data.1"),
    ],
)
def test_a_bad_fit_is_refused_and_keeps_the_detector(
    library: Detectors, options: dict[str, Any], param: str
) -> None:
    before = fit(library)
    with pytest.raises(InvalidInputError) as caught:
        fit(library, **options)
    assert caught.value.param == param
    assert library.get("pump") == before


def test_a_bad_request_fails_alone(library: Detectors) -> None:
    fit(library)
    rows = TABLE.rows[:2]
    bad = Table((rows[0], (1.0, "2", 3.0, 4.0)))
    requests = [
        AnomalyScoreRequest("pump", Table(rows)),
        AnomalyScoreRequest("pump", bad),
        AnomalyScoreRequest("gone", Table(rows)),
        AnomalyScoreRequest("pump", Table(rows), backend="lof"),
        AnomalyScoreRequest("pump", Table(rows[1:])),
    ]
    first, second, third, fourth, last = library.score(requests)
    assert isinstance(first, AnomalyScores)
    assert isinstance(last, AnomalyScores)
    assert first.raw[1:] == last.raw
    assert isinstance(second, InvalidInputError)
    assert second.param == "data.1"
    assert "Row 1, column '1'" in second.message
    assert isinstance(third, ModelNotFoundError)
    assert isinstance(fourth, InvalidInputError)
    assert fourth.param == "backend"
    assert library.score([]) == []


def test_requests_for_one_detector_are_one_call(
    library: Detectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(library, "a")
    fit(library, "b")
    calls = []
    original = fitted.FittedDetector._raw

    def counted(self: fitted.FittedDetector, rows: Matrix) -> Scores:
        calls.append(len(rows))
        return original(self, rows)

    monkeypatch.setattr(fitted.FittedDetector, "_raw", counted)
    one = Table(TABLE.rows[:1])
    library.score([AnomalyScoreRequest(name, one) for name in "ab" * 32])
    assert calls == [32, 32]


def test_both_names_of_lof_are_one_backend(library: Detectors) -> None:
    fit(library, backend="local_outlier_factor")
    assert score(library, backend="lof") == score(library, backend="local_outlier_factor")
    assert library.get("pump").backend == "local_outlier_factor"


def test_missing_cells_are_filled_as_at_the_fit(library: Detectors) -> None:
    rows = [list(row) for row in TABLE.rows]
    rows[3][1] = None
    table = Table(tuple(map(tuple, rows)))
    with pytest.raises(InvalidInputError, match="Row 3, column '1': a value is missing"):
        fit(library, table=table)
    assert fit(library, table=table, missing="mean").missing == "mean"
    mean = float(np.mean([row[1] for row in rows if row[1] is not None]))
    gap, full = Table(((1.0, None, 2.0, 3.0),)), Table(((1.0, mean, 2.0, 3.0),))
    assert score(library, table=gap) == score(library, table=full)
    assert score(again(library), table=gap) == score(library, table=gap)


def test_auto_says_what_it_chose_and_why(library: Detectors) -> None:
    info = fit(library, backend="auto")
    assert info.selection is not None
    assert info.selection.rows == len(TABLE.rows)
    candidates = info.selection.candidates
    assert {candidate.backend for candidate in candidates} == set(choosing.CANDIDATES)
    sums = [candidate.agreement + candidate.stability for candidate in candidates]
    assert sums == sorted(sums, reverse=True)
    assert info.backend == candidates[0].backend
    assert again(library).get("pump") == info
    fit(library, "same", backend=info.backend)
    assert score(library, backend="auto").raw == score(library, "same").raw
    assert score(library, backend=info.backend) == score(library)
    fit(library, "plain", backend="ecod")
    with pytest.raises(InvalidInputError, match="fitted with the backend 'ecod'"):
        score(library, "plain", backend="auto")


def test_auto_takes_the_first_candidate_for_few_rows(library: Detectors) -> None:
    info = fit(library, backend="auto", table=Table(TABLE.rows[:10]))
    assert info.backend == "isolation_forest"
    assert info.selection == Selection(10, ())


def test_auto_prefers_what_is_stable_and_agreed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    up = np.arange(1.0, 11.0)
    ranks = {
        "isolation_forest": (up[::-1], up[::-1]),  # stable, alone
        "ecod": (up, np.roll(up, 3)),  # agreed on, less stable
        "hbos": (up, up),
        "knn": (np.ones(10), np.ones(10)),  # says nothing
        "pca": None,  # cannot be fitted
    }
    monkeypatch.setattr(choosing, "_ranks", lambda backend, *_: ranks[backend])
    chosen, selection = choosing.choose(ROWS, {"seed": 1, "contamination": 0.1})
    assert chosen == "hbos"
    by_name = {candidate.backend: candidate for candidate in selection.candidates}
    assert set(by_name) == {"isolation_forest", "ecod", "hbos", "knn"}
    assert by_name["hbos"].stability == pytest.approx(1.0)
    assert by_name["isolation_forest"].agreement < 0
    assert (by_name["knn"].agreement, by_name["knn"].stability) == (0.0, 0.0)
