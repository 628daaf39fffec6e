"""Anomalies in one series: where they are, what was expected, how wide the margins are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.anomaly.series import detect, detect_last
from models.anomaly.series_period import expect, find_period
from models.errors import InvalidInputError
from models.types.anomaly import SeriesRequest, SeriesResult

NOISE = np.random.default_rng(0).normal(size=600)
TIME = np.arange(600)
SEASON = 10 * np.sin(2 * np.pi * TIME / 24)


def found(values: Any, **options: Any) -> list[int]:
    return np.flatnonzero(judged(values, **options).anomalous).tolist()


def judged(values: Any, **options: Any) -> SeriesResult:
    return detect(SeriesRequest(tuple(np.asarray(values).tolist()), **options))


@pytest.mark.parametrize("period", [2, 7, 24, 100])
def test_the_period_is_found(period: int) -> None:
    pattern = np.random.default_rng(period).normal(size=period) * 5
    series = np.tile(pattern, 600 // period + 1)[:600] + NOISE + 0.05 * TIME
    assert find_period(series) == period


@pytest.mark.parametrize("series", [NOISE, np.full(600, 3.0), 0.1 * TIME, TIME[:12] * 0.0])
def test_what_does_not_repeat_has_no_period(series: Any) -> None:
    assert find_period(np.asarray(series, dtype=float)) == 0


def test_spikes_are_found_on_a_trend() -> None:
    values = 0.5 * TIME + NOISE
    values[100] += 15
    values[300] -= 15
    result = judged(values, kind="spike", sensitivity=60)
    assert np.flatnonzero(result.anomalous).tolist() == [100, 300]
    assert result.period == 0
    assert values[100] > result.upper[100]
    assert values[300] < result.lower[300]
    assert abs(result.expected[100] - 50) < 3
    assert result.severity[100] > 0.5
    assert result.severity.sum() == result.severity[100] + result.severity[300]


def test_a_usual_value_at_the_wrong_time_of_the_season_is_found() -> None:
    values = SEASON + 0.3 * NOISE
    values[18 + 24 * 10] = 10.0  # the season has its low point here
    assert found(values, kind="seasonal", sensitivity=80) == [258]
    assert values[258] < values.max()
    assert judged(values).period == 24
    assert judged(values, period=24).period == 24


def test_expected_values_are_trend_and_season() -> None:
    values = SEASON + 0.1 * TIME
    expected = expect(values, 24)
    assert np.abs(expected[:-1] - values).max() < 1e-6
    assert expected[-1] == pytest.approx(60.0)


def test_a_level_shift_is_found_once_where_it_is() -> None:
    values = 0.3 * NOISE + np.where(TIME >= 200, 10.0, 0.0) - np.where(TIME >= 420, 6.0, 0.0)
    indices = found(values, kind="level_shift")
    assert len(indices) == 2
    assert abs(indices[0] - 200) <= 2
    assert abs(indices[1] - 420) <= 2
    result = judged(values, kind="level_shift")
    assert result.observed[indices[0]] > 8
    assert result.observed[indices[1]] < -4


def test_a_change_of_volatility_is_found() -> None:
    values = NOISE * np.where(TIME >= 300, 8.0, 1.0)
    indices = found(values, kind="volatility", sensitivity=99)
    assert len(indices) == 1
    assert abs(indices[0] - 300) <= 5


def test_sensitivity_narrows_the_margins_and_the_ratio_bounds_the_anomalies() -> None:
    widths = [
        float((result.upper - result.lower)[0])
        for result in (judged(NOISE, kind="spike", sensitivity=s) for s in (0, 50, 99))
    ]
    assert widths == sorted(widths, reverse=True)
    counts = [len(found(NOISE, kind="spike", sensitivity=s)) for s in (0, 90, 99)]
    assert counts == sorted(counts)
    assert len(found(NOISE, kind="spike", sensitivity=99, max_anomaly_ratio=0.005)) == 3


def test_a_constant_series_has_no_anomaly_but_what_leaves_it() -> None:
    values = np.full(100, 5.0)
    assert found(values) == []
    values[50] = 6.0
    assert found(values, kind="spike") == [50]


def test_the_last_value_is_judged_by_those_before_it() -> None:
    values = SEASON + 0.3 * NOISE
    usual = detect_last(SeriesRequest(tuple(values[:500].tolist())))
    assert (usual.period, usual.anomalous.tolist()) == (24, [False])
    assert abs(float(usual.expected[0]) - SEASON[499]) < 1.5
    odd = detect_last(SeriesRequest((*values[:499].tolist(), float(values[499] + 12))))
    assert odd.anomalous.tolist() == [True]
    assert odd.expected.tolist() == usual.expected.tolist()


@pytest.mark.parametrize(
    ("values", "options", "param"),
    [
        ([1.0] * 11, {}, "series"),
        ([1.0] * 10_001, {}, "series"),
        ([1.0] * 20 + [float("nan")], {}, "series.20"),
        ([1e200] + [1.0] * 20, {}, "series.0"),
        (NOISE[:40].tolist(), {"period": 21}, "period"),
        (NOISE.tolist(), {"kind": "seasonal"}, "period"),
        (NOISE[:40].tolist(), {"kind": "volatility"}, "window"),
    ],
)
def test_bad_series_are_refused(values: Any, options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        judged(values, **options)
    assert caught.value.param == param
