"""The numpy detectors against plain loops that follow their papers; the meaning of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, median, pstdev
from typing import Any

import numpy as np
import pytest

from models.anomaly import autoencoders, clusters, histograms, statistical, tails
from models.anomaly.calibration import MAX_SCORE, Calibration
from models.anomaly.parameters import Parameter
from models.errors import InvalidInputError
from models.types.anomaly import ScoreNormalization

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


def surprises(x: float, column: list[float]) -> tuple[float, float, float]:
    """-log of both tail probabilities, and the one on the side of the longer tail."""
    n = len(column)
    low = -math.log(max(sum(v <= x for v in column) / n, 1 / (n + 1)))
    high = -math.log(max(sum(v >= x for v in column) / n, 1 / (n + 1)))
    skew = sum((v - mean(column)) ** 3 for v in column)
    return low, high, low if skew < 0 else high


def test_ecod_adds_up_the_rarer_tails() -> None:
    state = tails.fit_tails(TRAIN)
    columns = TRAIN.T.tolist()

    def naive(row: Sequence[float]) -> float:
        return sum(max(surprises(x, column)) for x, column in zip(row, columns, strict=True))

    assert np.allclose(tails.score_ecod(state, TEST), by_rows(naive))


def test_copod_adds_up_the_longer_tails() -> None:
    state = tails.fit_tails(TRAIN)
    columns = TRAIN.T.tolist()

    def naive(row: Sequence[float]) -> float:
        parts = [surprises(x, column) for x, column in zip(row, columns, strict=True)]
        return sum(max(by_skew, (low + high) / 2) for low, high, by_skew in parts)

    assert np.allclose(tails.score_copod(state, TEST), by_rows(naive))


@pytest.mark.parametrize("score", [tails.score_ecod, tails.score_copod])
def test_values_beyond_all_others_score_higher_than_the_extremes(score: Any) -> None:
    state = tails.fit_tails(TRAIN)
    extremes = np.stack([TRAIN.max(axis=0), TRAIN.max(axis=0) + 1])
    at, beyond = score(state, extremes)
    assert beyond > at


def test_a_symmetric_feature_counts_both_tails_in_ecod() -> None:
    state = tails.fit_tails(np.array([[-1.0], [0.0], [1.0]]))
    assert state["skew"].tolist() == [0.0]
    (score,) = tails.score_ecod(state, np.array([[0.0]]))
    assert score == pytest.approx(-2 * math.log(2 / 3))


def test_hbos_adds_up_the_log_densities() -> None:
    bins, alpha, tol = 5, 0.1, 0.5
    state = histograms.fit_hbos(TRAIN, bins)

    def naive(row: Sequence[float]) -> float:
        total = 0.0
        for x, column in zip(row, TRAIN.T, strict=True):
            density, edges = np.histogram(column, bins=bins, density=True)
            width = edges[1] - edges[0]
            place = sum(x > edge for edge in edges[1:-1])  # closed on the right
            inside = edges[0] - tol * width <= x <= edges[-1] + tol * width
            total -= math.log2((density[place] if inside else 0.0) + alpha)
        return total

    assert np.allclose(histograms.score_hbos(state, TEST, alpha, tol), by_rows(naive))


def test_loda_is_the_mean_surprise_along_sparse_lines() -> None:
    bins, cuts = 6, 7
    state = histograms.fit_loda(TRAIN, bins, cuts, seed=3)
    assert state["weights"].shape == (cuts, 1)  # the square root of three features, cut off
    expected = np.zeros(len(TEST))
    for features, weights in zip(state["features"].astype(int), state["weights"], strict=True):
        known, asked = TRAIN[:, features] @ weights, TEST[:, features] @ weights
        counts, edges = np.histogram(known, bins=bins)
        shares = (counts + 1e-12) / (counts + 1e-12).sum()
        for row, value in enumerate(asked):
            place = sum(value > edge for edge in edges[1:-1])
            inside = edges[0] <= value <= edges[-1]
            expected[row] -= math.log(shares[place] if inside else 1e-12) / cuts
    assert np.allclose(histograms.score_loda(state, TEST), expected)


GROUPS = np.concatenate([SOURCE.normal(c, 0.1, (n, 2)) for c, n in ((0, 60), (5, 55), (10, 4))])


def test_cblof_measures_the_distance_to_large_clusters() -> None:
    state = clusters.fit_clusters(GROUPS, n_clusters=3, alpha=0.9, beta=5.0, seed=0)
    large = sorted(state["centers"][state["large"] > 0].mean(axis=1).round())
    assert large == [0.0, 5.0]
    own = state["centers"][state["centers"].mean(axis=1).round() == 5.0][0]
    scores = clusters.score_clusters(state, np.array([[5.0, 6.0], [10.0, 10.0]]))
    assert scores == pytest.approx([math.dist((5, 6), own), math.dist((10, 10), own)])


def test_cblof_takes_all_clusters_for_large_where_they_are_alike() -> None:
    rows = np.concatenate([SOURCE.normal(5 * c, 0.1, (20, 2)) for c in range(4)])
    state = clusters.fit_clusters(rows, n_clusters=4, alpha=0.9, beta=5.0, seed=0)
    assert state["large"].tolist() == [1.0] * 4


def test_no_more_clusters_than_distinct_rows() -> None:
    state = clusters.fit_clusters(np.ones((9, 2)), n_clusters=8, alpha=0.9, beta=5.0, seed=0)
    assert state["centers"].tolist() == [[1.0, 1.0]]
    assert clusters.score_clusters(state, np.array([[1.0, 3.0]])).tolist() == [2.0]


def test_an_autoencoder_rebuilds_as_torch_does() -> None:
    import torch

    rows = SOURCE.normal(size=(50, 3))
    state = autoencoders.fit_autoencoder(rows, 8, 2, autoencoders.Training(2, 16, 1e-3, 5, seed=1))
    values = torch.from_numpy(rows)
    for index in range(4):
        weight, bias = (torch.from_numpy(state[f"{kind}{index}"]) for kind in ("weight", "bias"))
        values = torch.nn.functional.linear(values, weight, bias)
        values = torch.relu(values) if index in (0, 2) else values
    assert np.allclose(autoencoders.rebuild(state, rows), values.numpy())
    errors = ((values.numpy() - rows) ** 2).mean(axis=1)
    assert np.allclose(autoencoders.score_autoencoder(state, rows), errors)


@pytest.mark.parametrize("beta", [None, 0.1])
def test_training_lowers_the_error_of_the_autoencoder(beta: float | None) -> None:
    line = SOURCE.normal(size=(200, 1)) @ np.ones((1, 4))

    def error(epochs: int) -> float:
        training = autoencoders.Training(epochs, 16, 1e-2, 100, seed=1, beta=beta)
        state = autoencoders.fit_autoencoder(line, 8, 1, training)
        return float(autoencoders.score_autoencoder(state, line).mean())

    assert error(30) < 0.3 * error(1)


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
    unified = [max(0.0, math.erf(z / math.sqrt(2))) for z in zscore]
    assert np.allclose(calibration.normalized(raw, "probability"), unified)


@pytest.mark.parametrize("contamination", [0.01, 0.1, 0.5])
def test_the_threshold_leaves_that_share_of_the_training_rows_above(contamination: float) -> None:
    scores = np.random.default_rng(0).normal(size=1000)
    calibration = Calibration.of(scores, contamination)
    assert (scores > calibration.threshold).sum() == 1000 * contamination
    normalised = calibration.normalized(scores, "standardization")
    above = normalised > calibration.threshold_in("standardization")
    assert above.sum() == 1000 * contamination


@pytest.mark.parametrize("contamination", [0.01, 0.2505, 0.5])
def test_another_contamination_learns_what_a_fit_would_have(contamination: float) -> None:
    scores = np.random.default_rng(0).normal(size=1000)
    before = Calibration.of(scores, 0.1)
    after = before.at_contamination(contamination)
    assert abs((scores > after.threshold).sum() - 1000 * contamination) <= 0.5
    assert (after.median, after.highest) == (before.median, before.highest)
    with pytest.raises(InvalidInputError):
        before.at_contamination(0.6)


@pytest.mark.parametrize(
    ("normalization", "threshold"),
    [("raw", -3.5), ("zscore", 1.25), ("standardization", 0.8), ("probability", 0.9)],
)
def test_a_given_threshold_is_on_the_scale_of_its_scores(
    normalization: ScoreNormalization, threshold: float
) -> None:
    calibration = Calibration.of(TRAINING_SCORES, 0.1).at_threshold(threshold, normalization)
    assert calibration.threshold_in(normalization) == pytest.approx(threshold)


@pytest.mark.parametrize(
    ("normalization", "threshold"),
    [
        ("standardization", 0.0),
        ("standardization", 1.5),
        ("probability", 1.0),
        ("probability", -0.1),
        ("raw", math.inf),
        ("zscore", math.nan),
    ],
)
def test_a_threshold_that_no_score_can_have_is_refused(
    normalization: ScoreNormalization, threshold: float
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Calibration.of(TRAINING_SCORES, 0.1).at_threshold(threshold, normalization)
    assert refused.value.param == "threshold"


@pytest.mark.parametrize(
    "training", [[5.0] * 9, [MAX_SCORE, -MAX_SCORE, 0.0], [0.0] * 9 + [1e-320]]
)
def test_scores_stay_finite_whatever_the_training_scores_were(training: list[float]) -> None:
    calibration = Calibration.of(np.array(training), 0.1)
    raw = np.array([-MAX_SCORE, -1.0, 0.0, 5.0, MAX_SCORE])
    for name in ("standardization", "zscore", "raw", "probability"):
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
