"""Anomaly detection: tables, detectors, streams, series."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

ScoreNormalization = Literal["standardization", "zscore", "raw", "probability"]
MissingPolicy = Literal["error", "mean", "median", "zero", "category"]
Cell = float | int | str | bool | None
Row = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells. `columns` names them when the client sent objects, else it is None."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class NumericTable:
    """Rows that are all numbers, float64 [rows, columns]; NaN where a number is missing."""

    values: npt.NDArray[np.float64]
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class UploadedTable:
    """A file with a table, not read yet; a larger one is refused.

    `header`: the first line of a CSV file names the columns.
    """

    format: Literal["csv", "arrow", "parquet"]
    data: bytes = field(repr=False)
    max_rows: int
    max_columns: int
    header: bool = True


AnyTable = Table | NumericTable | UploadedTable


@dataclass(frozen=True, slots=True)
class FitRequest:
    """Fit the detector `backend` and keep it under `name`, replacing what was there.

    `schema` maps a column to its encoding (numeric, hash, label, onehot, binary, frequency);
    inferred when absent. `contamination` is the expected share of anomalies, 0 < c <= 0.5.
    `missing` says what stands for cells that are None. The backend "auto" chooses one itself.
    """

    name: str
    backend: str
    table: AnyTable
    schema: tuple[tuple[str, str], ...] | None = None
    contamination: float = 0.1
    normalization: ScoreNormalization = "standardization"
    parameters: tuple[tuple[str, float | int | str | bool], ...] = ()
    seed: int = 42
    missing: MissingPolicy = "error"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that "auto" has tried; both are rank correlations on rows it was not fitted to.

    `agreement` with the mean rank of the other candidates, `stability` between two fits.
    """

    backend: str
    agreement: float
    stability: float


@dataclass(frozen=True, slots=True)
class Selection:
    """Why "auto" chose its backend: the candidates, best first, on `rows` training rows.

    There are none where the rows were too few for a comparison.
    """

    rows: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """A fitted detector as the catalogue of artefacts shows it; times are Unix seconds."""

    name: str
    backend: str
    version: int
    created: int
    size_bytes: int
    samples: int
    features: tuple[str, ...]
    schema: tuple[tuple[str, str], ...]
    contamination: float
    threshold: float
    normalization: ScoreNormalization
    fit_seconds: float = 0.0
    parameters: tuple[tuple[str, float | int | str], ...] = ()
    missing: MissingPolicy = "error"
    selection: Selection | None = None


@dataclass(frozen=True, slots=True)
class ThresholdRequest:
    """Another threshold for a fitted detector, without a fit: one of both is given.

    `threshold` is on the scale of `normalization`, the fit's by default; `contamination` is the
    share of the training rows that is to be above it.
    """

    name: str
    threshold: float | None = None
    contamination: float | None = None
    normalization: ScoreNormalization | None = None


@dataclass(frozen=True, slots=True)
class AnomalyScoreRequest:
    """Score rows with a fitted detector; `threshold` and `normalization` default to the fit's.

    `explain` asks for the contributions of so many columns per row, the largest first; 0 for none.
    """

    name: str
    table: AnyTable
    backend: str | None = None
    threshold: float | None = None
    normalization: ScoreNormalization | None = None
    explain: int = 0


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one column adds to a raw score; below 0 where it makes the row look more normal."""

    column: str
    value: float


@dataclass(frozen=True, slots=True)
class AnomalyScores:
    """High score = anomaly. `scores` are normalised by *training* statistics, `raw` are not.

    `version` names the one fitted version that produced all of them. `contributions` has one
    entry per row when they were asked for (an empty one where too many rows would be explained),
    else none.
    """

    scores: array[float]
    """Of doubles, which travel as so many bytes; so does `raw`."""
    raw: array[float]
    threshold: float
    version: int
    anomalous: tuple[bool, ...] = ()
    contributions: tuple[tuple[Contribution, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class FitProgress:
    """What a running fit is at; `seconds` since it began. The last one has the detector."""

    stage: Literal["queued", "started", "fitting", "stored"]
    seconds: float
    info: DetectorInfo | None = None


@dataclass(frozen=True, slots=True)
class FitJob:
    """A fit in the background; times are Unix seconds, 0 for what has not come yet."""

    id: str
    model: str
    backend: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    created: float
    started: float = 0.0
    updated: float = 0.0
    finished: float = 0.0
    error: Exception | None = None
    info: DetectorInfo | None = None


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a streaming detector is fitted; fixed when its first point comes.

    It is fitted on the last `window_size` points once there are `min_samples`, and again after
    every `retrain_interval` points. Numeric columns get their mean, deviation, minimum and maximum
    over the last n points for every n of `rolling_windows`, and their values n points ago for every
    n of `lag_periods`. `threshold` is of scores from 0 to 1;
    None: that of the contamination.
    """

    backend: str = "ecod"
    min_samples: int = 50
    retrain_interval: int = 100
    window_size: int = 1000
    contamination: float = 0.1
    threshold: float | None = None
    rolling_windows: tuple[int, ...] = ()
    lag_periods: tuple[int, ...] = ()
    parameters: tuple[tuple[str, float | int | str | bool], ...] = ()
    seed: int = 42


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """Points for the streaming detector `name`, in their order; `given`: settings it asks for."""

    name: str
    table: Table
    settings: StreamSettings = StreamSettings()
    given: tuple[str, ...] = ()


StreamStatus = Literal["collecting", "ready", "retraining"]


@dataclass(frozen=True, slots=True)
class StreamPoint:
    """`score` None: the detector was not fitted yet, so many points are missing."""

    score: float | None
    raw: float | None
    anomalous: bool
    until_ready: int = 0


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A streaming detector; `samples` have come since it was created or reset."""

    name: str
    status: StreamStatus
    settings: StreamSettings
    samples: int
    window: int
    until_ready: int
    version: int
    columns: tuple[str, ...]
    created: float


@dataclass(frozen=True, slots=True)
class StreamResult:
    """The points of one request, judged before they joined the window.

    `threshold` is the one that judged them, None where none was.
    """

    info: StreamInfo
    points: tuple[StreamPoint, ...]
    threshold: float | None = None


SeriesKind = Literal["auto", "spike", "seasonal", "level_shift", "volatility"]


@dataclass(frozen=True, slots=True)
class SeriesRequest:
    """One series of equally spaced values, to be judged by itself.

    `period` None: found out; 0: there is none. `sensitivity` 0 to 99: how narrow the margins are.
    At most `max_anomaly_ratio` of the points are anomalies. `window`: points on each side that
    level_shift and volatility compare; None: 5 and 30.
    """

    values: tuple[float, ...]
    kind: SeriesKind = "auto"
    period: int | None = None
    sensitivity: int = 95
    max_anomaly_ratio: float = 0.25
    window: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SeriesResult:
    """Float64 and bool, one entry per value; a value between `lower` and `upper` is normal.

    `observed` is what was judged: the value, or what a window of values says. `severity` is from 0
    to 1, above 0 for anomalies only.
    """

    period: int
    observed: npt.NDArray[np.float64]
    expected: npt.NDArray[np.float64]
    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    anomalous: npt.NDArray[np.bool_]
    severity: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """A parameter of a backend: numbers lie from `low` to `high`, texts are one of `choices`."""

    name: str
    type: Literal["integer", "number", "string"]
    default: float | int | str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    description: str


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A backend as clients choose it. `explanation` says what its contributions are."""

    name: str
    aliases: tuple[str, ...]
    category: str
    fit_cost: str
    score_cost: str
    memory: str
    max_rows: int
    use: str
    explanation: str
    parameters: tuple[ParameterInfo, ...]
