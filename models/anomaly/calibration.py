"""What a detector's raw scores mean: statistics of the training scores, normalised scores.

`standardization` is sigmoid((s - median) / (2 IQR)), from 0 to 1; `zscore` is (s - mean) / std;
`probability` is erf(zscore / sqrt(2)), 0 below the mean: how much of a normal distribution lies
nearer to the mean (Kriegel et al., SDM 2011; PyOD's "unify"); `raw` is s. All statistics come from
the training rows, so a row's score does not depend on the rows beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import erf, erfinv, logit

from models.errors import InvalidInputError
from models.types.anomaly import ScoreNormalization

Scores = npt.NDArray[np.float64]

MAX_SCORE = 1e150
"""Scores are finite, and so are sums of their squares, whatever a row holds."""
SHARES = np.linspace(0.0, 0.5, 501)
"""Of the training rows; the raw score that each share of them is above is kept."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Statistics of the raw training scores, and the raw score above which a row is anomalous.

    `spread` is the divisor of standardization, `deviation` that of zscore; both are above 0.
    `highest` has a raw score for each of SHARES.
    """

    median: float
    spread: float
    mean: float
    deviation: float
    threshold: float
    highest: tuple[float, ...]

    @staticmethod
    def of(training: Scores, contamination: float) -> Calibration:
        """`contamination` of the training rows are above the threshold, as in scikit-learn."""
        low, median, high = np.percentile(training, [25, 50, 75])
        deviation = float(np.std(training)) or 1.0
        return Calibration(
            median=float(median),
            spread=2 * float(high - low) or deviation,
            mean=float(np.mean(training)),
            deviation=deviation,
            threshold=-float(np.percentile(-training, 100 * contamination)),
            highest=tuple((-np.percentile(-training, 100 * SHARES)).tolist()),
        )

    def at_contamination(self, contamination: float) -> Calibration:
        """The threshold that a fit with this contamination would have learned (between two of
        SHARES, interpolated). Raises InvalidInputError."""
        check_contamination(contamination)
        return replace(self, threshold=float(np.interp(contamination, SHARES, self.highest)))

    def at_threshold(self, threshold: float, normalization: ScoreNormalization) -> Calibration:
        """A given threshold, on the scale of normalised scores. Raises InvalidInputError."""
        with np.errstate(divide="ignore", invalid="ignore"):
            raw = float(self._raw(np.float64(threshold), normalization))
        if not np.isfinite(raw):
            message = f"{threshold} is no threshold of '{normalization}' scores."
            raise InvalidInputError(message, "threshold")
        return replace(self, threshold=raw)

    def _raw(self, score: np.float64, normalization: ScoreNormalization) -> np.float64:
        """The raw score of a normalised one; not finite where there is none."""
        match normalization:
            case "raw":
                return score
            case "zscore":
                return score * self.deviation + self.mean
            case "probability":
                deviations = erfinv(score) * np.sqrt(2) if score >= 0 else np.nan
                return np.float64(deviations * self.deviation + self.mean)
            case "standardization":
                return np.float64(logit(score) * self.spread + self.median)

    def normalized(self, raw: Scores, normalization: ScoreNormalization) -> Scores:
        """Increasing in `raw` (`probability`: never decreasing), elementwise."""
        with np.errstate(over="ignore", under="ignore"):
            if normalization == "raw":
                return raw
            if normalization in ("zscore", "probability"):
                deviations = bounded((raw - self.mean) / self.deviation)
                return deviations if normalization == "zscore" else _unified(deviations)
            # tanh's form of the sigmoid: no overflow for large negative arguments
            return 0.5 + 0.5 * np.tanh(0.5 * bounded((raw - self.median) / self.spread))

    def threshold_in(self, normalization: ScoreNormalization) -> float:
        """The learned threshold on the scale of normalised scores."""
        return float(self.normalized(np.array([self.threshold]), normalization)[0])


def check_contamination(contamination: float) -> None:
    """Raises InvalidInputError."""
    if not 0 < contamination <= 0.5:
        raise InvalidInputError("'contamination' must be above 0 and at most 0.5.", "contamination")


def _unified(deviations: Scores) -> Scores:
    return np.asarray(np.clip(erf(deviations / np.sqrt(2)), 0.0, 1.0), dtype=np.float64)


def bounded(scores: Scores) -> Scores:
    return np.clip(scores, -MAX_SCORE, MAX_SCORE)
