"""The period of a series, and what trend and season let expect of its values.

The period is the lag of the first hill of the autocorrelation that is nearly as high as the highest
one. Trend and season are those of the classical decomposition (Hyndman and Athanasopoulos,
"Forecasting: Principles and Practice", 3rd edition, section 3.4), but with medians in place of
means: an anomaly must not be expected of its neighbours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

Values = npt.NDArray[np.float64]

MIN_CORRELATION = 0.3
NOISE = 3.0
"""Standard deviations of the autocorrelation of white noise, 1 / sqrt(n), that a hill is above."""
NEARLY = 0.9
MIN_PERIOD = 2
REACH = 3
"""Neighbours on each side that a value of a series without a period is compared with."""
NORMAL_MAD = 1.4826
"""The standard deviation of a normal distribution, in median absolute deviations."""


def find_period(values: Values) -> int:
    """In points; 0 when the series repeats nothing at least three times."""
    rest = _without_line(values)
    longest = len(rest) // 3
    if longest < MIN_PERIOD or not np.std(rest) > 1e-12 * max(1.0, float(np.max(np.abs(values)))):
        return 0
    correlation = _autocorrelation(rest)[: longest + 2]
    inner = correlation[MIN_PERIOD:-1]
    hills = (inner >= correlation[MIN_PERIOD - 1 : -2]) & (inner >= correlation[MIN_PERIOD + 1 :])
    lowest = max(MIN_CORRELATION, NOISE / np.sqrt(len(rest)))
    lags = np.flatnonzero(hills & (inner >= lowest)) + MIN_PERIOD
    if not len(lags):
        return 0
    return int(lags[correlation[lags] >= NEARLY * correlation[lags].max()][0])


def expect(values: Values, period: int) -> Values:
    """Trend and season of every point, and of the one after the last; float64 [points + 1].

    Without a period the median of the neighbours; the last points are those of the next one.
    """
    if not period:
        return _neighbours(values)
    season = _season(values - _moving_average(values, period)[:-1], period)
    phases = np.arange(len(values) + 1) % period
    trend = _moving_median(values - season[phases[:-1]], period)
    return trend + _season(values - trend[:-1], period)[phases]


def deviation_of(rest: Values) -> float:
    """By the median absolute deviation; by the standard deviation where most are alike."""
    deviation = NORMAL_MAD * float(np.median(np.abs(rest - np.median(rest))))
    return deviation or float(np.std(rest))


def _without_line(values: Values) -> Values:
    """The series without its mean and slope."""
    time = np.arange(len(values), dtype=np.float64)
    time -= time.mean()
    slope = float(time @ values / (time @ time))
    return np.asarray(values - values.mean() - slope * time, dtype=np.float64)


def _autocorrelation(rest: Values) -> Values:
    """By lag, 1 at lag 0, not biased towards 0 where few points overlap."""
    size = 2 * len(rest)
    spectrum = np.abs(np.fft.rfft(rest, size)) ** 2
    sums = np.fft.irfft(spectrum, size)[: len(rest)]
    overlaps = np.arange(len(rest), 0, -1) / len(rest)
    return np.asarray(sums / (sums[0] * overlaps), dtype=np.float64)


def _neighbours(values: Values) -> Values:
    """The median of the values around each point but without it, [points + 1]."""
    padded = np.concatenate([values[REACH:0:-1], values, values[-2 : -2 - REACH : -1]])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1)
    around = np.median(np.delete(windows, REACH, axis=1), axis=1)
    return np.append(around, np.median(values[-2 * REACH :]))


def _moving_average(values: Values, period: int) -> Values:
    """Over one period around each point, [points + 1]."""
    weights = np.full(period + 1 - period % 2, 1.0 / period)
    if period % 2 == 0:
        weights[[0, -1]] /= 2
    return _prolonged(np.convolve(values, weights, mode="valid"), len(values), period)


def _moving_median(values: Values, period: int) -> Values:
    """Of values without their season, [points + 1]; an outlier does not move it."""
    half = period // 2
    inner = median_filter(values, size=2 * half + 1)[half : len(values) - half]
    return _prolonged(inner, len(values), period)


def _prolonged(inner: Values, count: int, period: int) -> Values:
    """What is known of the middle, [count + 1]: both ends go on with the slope beside them."""
    before = (count - len(inner)) // 2
    reach = min(period, len(inner) - 1)
    first, last = (inner[reach] - inner[0], inner[-1] - inner[-1 - reach]) if reach else (0.0, 0.0)
    start = inner[0] + first / max(reach, 1) * np.arange(-before, 0)
    end = inner[-1] + last / max(reach, 1) * np.arange(1, count - before - len(inner) + 2)
    return np.asarray(np.concatenate([start, inner, end]), dtype=np.float64)


def _season(rest: Values, period: int) -> Values:
    """The median of each phase, which sum to 0."""
    season = np.array([np.median(rest[phase::period]) for phase in range(period)])
    return np.asarray(season - np.mean(season), dtype=np.float64)
