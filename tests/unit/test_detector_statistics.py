"""The numpy detectors against plain loops that follow their papers; the meaning of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, median, pstdev
from typing import Any

import numpy as np
import pytest

from models.anomaly import statistical
from models.anomaly.calibration import MAX_SCORE, Calibration
from models.anomaly.parameters import Parameter
from models.errors import InvalidInputError

SOURCE = np.random.default_rng(5)
TRAIN = SOURCE.gamma(2.0, size=(60, 3)).round(1)  # skewed, with ties
TEST = np.concatenate([TRAIN[:10], SOURCE.normal(1.0, 4.0, size=(20, 3))])


def by_rows(score: Any) -> list[float]:
    return [score(row) for row in TEST.tolist()]


def test_zscore_is_the_largest_distance_in_standard_deviations() -> None:
    state = statistical.fit_deviations(TRAIN, "mean")
    columns = TRAIN.T.tolist()

    def naive(row: Sequence[float]) -> Any:
        return max(abs(x - mean(c)) / pstdev(c) for x, c in zip(row, columns, strict=True))

    assert np.allclose(statistical.score_deviations(state, TEST), by_rows(naive))


def test_mad_is_the_largest_distance_in_median_deviations() -> None:
    state = statistical.fit_deviations(TRAIN, "median")
    columns = TRAIN.T.tolist()

    def distance(x: float, column: list[float]) -> float:
        middle = median(column)
        return abs(x - middle) / (1.4826022185 * median(abs(v - middle) for v in column))

    def naive(row: Sequence[float]) -> float:
        return max(distance(x, c) for x, c in zip(row, columns, strict=True))

    assert np.allclose(statistical.score_deviations(state, TEST), by_rows(naive))


def test_mad_falls_back_where_most_values_are_equal() -> None:
    rows = np.array([[1.0]] * 9 + [[11.0]])
    state = statistical.fit_deviations(rows, "median")
    assert np.allclose(statistical.score_deviations(state, rows)[-1], 10 / 1.2533141373)


def test_a_constant_feature_is_measured_in_its_own_unit() -> None:
    for center in ("mean", "median"):
        state = statistical.fit_deviations(np.full((5, 1), 7.0), center)
        assert statistical.score_deviations(state, np.array([[7.0], [9.5]])).tolist() == [0, 2.5]


def test_ecod_follows_the_paper() -> None:
    state = statistical.fit_ecod(TRAIN)
    n = len(TRAIN)

    def naive(row: Sequence[float]) -> float:
        left = right = auto = 0.0
        for x, column in zip(row, TRAIN.T.tolist(), strict=True):
            low = -math.log(max(sum(v <= x for v in column) / n, 1 / (n + 1)))
            high = -math.log(max(sum(v >= x for v in column) / n, 1 / (n + 1)))
            skew = sum((v - mean(column)) ** 3 for v in column)
            left, right, auto = left + low, right + high, auto + (low if skew < 0 else high)
        return max(left, right, auto)

    assert np.allclose(statistical.score_ecod(state, TEST), by_rows(naive))


def test_ecod_values_beyond_all_others_score_higher_than_the_extremes() -> None:
    state = statistical.fit_ecod(TRAIN)
    extremes = np.stack([TRAIN.max(axis=0), TRAIN.max(axis=0) + 1])
    at, beyond = statistical.score_ecod(state, extremes)
    assert beyond > at


def test_hbos_follows_the_paper() -> None:
    bins, regularizer = 5, 0.1
    state = statistical.fit_hbos(TRAIN, bins)

    def naive(row: Sequence[float]) -> float:
        total = 0.0
        for x, column in zip(row, TRAIN.T, strict=True):
            counts, edges = np.histogram(column, bins=bins)
            place = min(int((x - edges[0]) / (edges[1] - edges[0])), bins - 1)
            inside = edges[0] <= x <= edges[-1]
            height = counts[place] / counts.max() if inside else 0.0
            total -= math.log(height + regularizer)
        return total

    assert np.allclose(statistical.score_hbos(state, TEST, regularizer), by_rows(naive))


@pytest.mark.parametrize(("share", "kept"), [(0.01, 1), (0.99, 2), (1.0, 2)])
def test_pca_is_the_squared_reconstruction_error(share: float, kept: int) -> None:
    state = statistical.fit_pca(TRAIN, share)
    assert len(state["components"]) == kept
    centred = TRAIN - TRAIN.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    leading = axes[:, ::-1][:, :kept]
    rest = (TEST - TRAIN.mean(axis=0)) @ (np.eye(3) - leading @ leading.T)
    assert np.allclose(statistical.score_pca(state, TEST), (rest**2).sum(axis=1))


def test_pca_of_one_feature_is_the_distance_to_the_mean() -> None:
    state = statistical.fit_pca(np.array([[1.0], [3.0]]), 0.9)
    assert statistical.score_pca(state, np.array([[2.0], [5.0]])).tolist() == [0.0, 9.0]


# --- calibration -----------------------------------------------------------------------------

TRAINING_SCORES = np.arange(101.0)


def test_normalised_scores_follow_their_definitions() -> None:
    calibration = Calibration.of(TRAINING_SCORES, 0.1)
    raw = np.array([0.0, 50.0, 90.0, 300.0])
    sigmoid = 1 / (1 + np.exp(-(raw - 50) / (2 * 50)))
    assert np.allclose(calibration.normalized(raw, "standardization"), sigmoid)
    zscore = (raw - 50) / TRAINING_SCORES.std()
    assert np.allclose(calibration.normalized(raw, "zscore"), zscore)
    assert calibration.normalized(raw, "raw").tolist() == raw.tolist()


@pytest.mark.parametrize("contamination", [0.01, 0.1, 0.5])
def test_the_threshold_leaves_that_share_of_the_training_rows_above(contamination: float) -> None:
    scores = np.random.default_rng(0).normal(size=1000)
    calibration = Calibration.of(scores, contamination)
    assert (scores > calibration.threshold).sum() == 1000 * contamination
    normalised = calibration.normalized(scores, "standardization")
    above = normalised > calibration.threshold_in("standardization")
    assert above.sum() == 1000 * contamination


@pytest.mark.parametrize(
    "training", [[5.0] * 9, [MAX_SCORE, -MAX_SCORE, 0.0], [0.0] * 9 + [1e-320]]
)
def test_scores_stay_finite_whatever_the_training_scores_were(training: list[float]) -> None:
    calibration = Calibration.of(np.array(training), 0.1)
    raw = np.array([-MAX_SCORE, -1.0, 0.0, 5.0, MAX_SCORE])
    for name in ("standardization", "zscore", "raw"):
        scores = calibration.normalized(raw, name)
        assert np.isfinite(scores).all()
        assert (np.diff(scores) >= 0).all()


# --- parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (Parameter("n", 5, low=1, high=9), 9.0, 9),
        (Parameter("x", 0.5, low=0, high=1), 1, 1.0),
        (Parameter("way", "a", choices=("a", "b")), "b", "b"),
    ],
)
def test_good_parameters_get_their_type(parameter: Parameter, value: Any, expected: Any) -> None:
    checked = parameter.checked(value)
    assert checked == expected
    assert type(checked) is type(parameter.default)


@pytest.mark.parametrize("value", [0, 10, 5.5, "5", True, None, math.nan, math.inf, 10**400])
def test_bad_numbers_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="'n'") as caught:
        Parameter("n", 5, low=1, high=9).checked(value)
    assert caught.value.param == "parameters.n"


@pytest.mark.parametrize("value", ["c", 1, None, True])
def test_bad_choices_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="one of a, b"):
        Parameter("way", "a", choices=("a", "b")).checked(value)
