"""Contributions: what they add up to, what they blame, what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.anomaly import explanations, forest
from models.anomaly.backends_table import DESCRIPTIONS
from models.anomaly.detectors import Detectors
from models.anomaly.model import Model
from models.errors import InvalidInputError
from models.types.anomaly import Contribution, Table
from tests.detector_samples import ROWS, TABLE, again, fit, score, table_of

EXACT = ("ecod", "copod", "hbos", "mcd", "pca", "autoencoder", "vae")
REPLACED = ("one_class_svm", "local_outlier_factor", "knn", "loda", "cblof", "suod")
COMMON = {"contamination": 0.05, "seed": 1}
BLOCKS = tuple(slice(place, place + 1) for place in range(ROWS.shape[1]))


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Detectors]:
    detectors = Detectors(root=tmp_path / "store", n_threads=2)
    yield detectors
    detectors.close()


def fitted(backend: str, rows: Any = ROWS) -> Model:
    values = DESCRIPTIONS[backend].values({}) | COMMON
    return Model.fit(backend, rows, values)[0]


def planted(features: int = 6, odd: int = 4) -> tuple[Any, Any]:
    """Rows on a plane of three dimensions and a little noise; one row with one odd feature."""
    source = np.random.default_rng(7)
    rows = source.normal(size=(300, 3)) @ source.normal(size=(3, features))
    rows += 0.2 * source.normal(size=rows.shape)
    row = np.median(rows, axis=0)
    row[odd] += 8 * rows[:, odd].std()
    return rows, row


@pytest.mark.parametrize("backend", DESCRIPTIONS)
def test_the_planted_column_is_blamed(library: Detectors, backend: str) -> None:
    rows, row = planted()
    names = tuple("abcdef")
    fit(library, table=Table(table_of(rows).rows, names), backend=backend)
    table = Table((tuple(row.tolist()),), names)
    result = score(library, table=table, explain=2)
    usual = score(library, table=Table((tuple(np.median(rows, axis=0).tolist()),), names))
    assert result.raw > usual.raw
    ((first, second),) = result.contributions
    assert first.column == "e"
    assert first.value > abs(second.value)
    assert score(again(library), table=table, explain=2) == result


@pytest.mark.parametrize("backend", EXACT)
def test_parts_add_up_to_the_raw_score(backend: str) -> None:
    model = fitted(backend)
    parts = model.parts(ROWS)
    assert parts is not None
    assert parts.shape == ROWS.shape
    assert np.allclose(parts.sum(axis=1), model.raw(ROWS), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", EXACT)
def test_contributions_add_up_to_the_distance_from_the_typical_row(backend: str) -> None:
    model, typical = fitted(backend), np.median(ROWS, axis=0)
    found = explanations.contributions(model, ROWS, typical, BLOCKS)
    expected = model.raw(ROWS) - model.raw(typical[np.newaxis])
    assert np.allclose(found.sum(axis=1), expected, rtol=1e-9, atol=1e-9)


def test_path_parts_add_up_to_log2_of_the_score_less_that_of_the_average_row() -> None:
    model = fitted("isolation_forest")
    parts = forest.path_parts(model.state, ROWS)
    rest = np.log2(model.raw(ROWS)) - parts.sum(axis=1)
    assert np.allclose(rest, rest[0])
    trees = model.state.estimators_
    expected = np.mean([forest._expected_lengths(tree.tree_)[0] for tree in trees])
    normal = forest._average_path_length(np.array([model.state.max_samples_]))[0]
    assert rest[0] == pytest.approx(-expected / normal)


def test_paths_lead_to_features_also_where_trees_see_some_only() -> None:
    rows, row = planted()
    values = DESCRIPTIONS["isolation_forest"].values({"max_features": 0.5}) | COMMON
    parts = Model.fit("isolation_forest", rows, values)[0].parts(row[np.newaxis])
    assert parts is not None
    assert int(np.argmax(parts[0])) == 4


@pytest.mark.parametrize("backend", ["zscore", "mad"])
def test_rules_show_the_deviations_of_each_column(backend: str) -> None:
    model = fitted(backend)
    parts = model.parts(ROWS)
    assert parts is not None
    assert parts.max(axis=1).tolist() == model.raw(ROWS).tolist()


def test_every_backend_says_how_it_explains() -> None:
    for backend, entry in DESCRIPTIONS.items():
        rows, _ = planted()
        exact = fitted(backend, rows[:60]).parts(rows[:1]) is not None
        assert entry.explanation.startswith("exact") == exact, backend
        assert (backend in REPLACED) == (not exact)


def test_replacement_is_the_mean_of_losing_and_gaining_a_value() -> None:
    def product(rows: Any) -> Any:
        return rows[:, 0] * rows[:, 1] + rows[:, 2]

    found = explanations.by_replacement(
        product, np.array([[2.0, 3.0, 5.0]]), np.array([1.0, 1.0, 0.0]), BLOCKS[:3]
    )
    assert found.tolist() == [[((11 - 8) + (2 - 1)) / 2, ((11 - 7) + (3 - 1)) / 2, 5.0]]


@pytest.mark.parametrize("backend", ["hbos", "knn"])
def test_the_features_of_a_column_are_blamed_together(library: Detectors, backend: str) -> None:
    source = np.random.default_rng(0)
    kinds = ["red", "green"] * 44 + ["blue"] * 2
    rows = tuple(zip(kinds, source.normal(size=90).tolist(), strict=True))
    table = Table(rows, ("kind", "size"))
    fit(library, table=table, backend=backend)
    odd = Table((("blue", 0.0), ("red", 9.0)), ("kind", "size"))
    first, second = score(library, table=odd, explain=9).contributions
    assert {part.column for part in first} == {"kind", "size"}
    assert first[0].column == "kind"
    assert second[0].column == "size"
    assert first[0].value > 0 < second[0].value


def test_explanations_are_given_on_request_only(library: Detectors) -> None:
    fit(library)
    assert score(library).contributions == ()
    result = score(library, explain=1)
    assert [len(parts) for parts in result.contributions] == [1] * len(TABLE.rows)
    assert isinstance(result.contributions[0][0], Contribution)
    assert result.scores == score(library).scores


@pytest.mark.parametrize("backend", DESCRIPTIONS)
def test_a_row_is_explained_the_same_alone_and_among_others(backend: str) -> None:
    model = fitted(backend)
    typical = np.median(ROWS, axis=0)
    together = explanations.contributions(model, ROWS[:20], typical, BLOCKS)
    for place in (0, 7, 19):
        alone = explanations.contributions(model, ROWS[place : place + 1], typical, BLOCKS)
        assert alone.tolist() == together[place : place + 1].tolist()


def test_of_many_rows_the_anomalous_ones_are_explained(
    library: Detectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(library)
    few = score(library, explain=2)
    monkeypatch.setattr(explanations, "MAX_CELLS", 4 * sum(few.anomalous))
    result = score(library, explain=2)
    assert 0 < sum(result.anomalous) < len(TABLE.rows)
    for anomalous, parts, before in zip(
        result.anomalous, result.contributions, few.contributions, strict=True
    ):
        assert parts == (before if anomalous else ())
    nothing = score(library, table=Table(TABLE.rows[:100]), explain=2, threshold=1.0)
    assert nothing.contributions == ((),) * 100


def test_too_many_anomalous_rows_are_not_explained(
    library: Detectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(library)
    monkeypatch.setattr(explanations, "MAX_CELLS", 40)
    options = {"explain": 1, "threshold": 0.0}
    assert len(score(library, table=Table(TABLE.rows[:10]), **options).contributions) == 10
    with pytest.raises(InvalidInputError, match="at most 10 anomalous rows") as caught:
        score(library, table=Table(TABLE.rows[:11]), **options)
    assert caught.value.param == "explain"
    assert score(library, table=Table(TABLE.rows[:11])).contributions == ()
