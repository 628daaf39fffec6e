"""Anomalies in one series: POST /v1/anomaly/timeseries, and the routes of Azure's Anomaly Detector.

Azure has retired its service; its clients work here with another endpoint.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request

from deployments.ingress.routes.anomaly_models import library
from deployments.ingress.schemas import LenientBody, Omittable, Reply
from deployments.ingress.server import Endpoint, Server
from models.errors import InvalidInputError
from models.types.anomaly import SeriesKind, SeriesRequest, SeriesResult

MAX_POINTS = 10_000
Sensitivity = Annotated[int, Field(ge=0, le=99)]
Ratio = Annotated[float, Field(gt=0, lt=0.5)]
Period = Annotated[int, Field(ge=0, le=MAX_POINTS)]
LAST_PERIODS = 4
"""Periods of history that the last point is best judged by, and one point more."""


class SeriesPoint(LenientBody):
    timestamp: Annotated[str, Field(max_length=64)] | None = None
    value: float


Series = (
    Annotated[list[float], Field(min_length=1, max_length=MAX_POINTS, fail_fast=True)]
    | Annotated[list[SeriesPoint], Field(min_length=1, max_length=MAX_POINTS, fail_fast=True)]
)


class SeriesBody(LenientBody):
    """`series`: equally spaced values, or objects with `value` and maybe `timestamp`."""

    series: Series
    detector: SeriesKind = "auto"
    period: Period | None = None
    sensitivity: Sensitivity = 95
    max_anomaly_ratio: Ratio = 0.25
    window: Annotated[int, Field(ge=2, le=MAX_POINTS)] | None = None


class JudgedPoint(Reply):
    """`observed` is what lies between `lower` and `upper` in a normal series: the value, or what
    the windows before and after it say."""

    index: int
    timestamp: Omittable[str] = None
    value: float
    observed: float
    expected: float
    lower: float
    upper: float
    is_anomaly: bool
    severity: float


class SeriesSummary(Reply):
    total_points: int
    anomaly_count: int
    anomaly_rate: float


class SeriesReply(Reply):
    object: Literal["anomaly.timeseries"] = "anomaly.timeseries"
    detector: SeriesKind
    period: int
    data: list[JudgedPoint]
    summary: SeriesSummary


class AzureBody(LenientBody):
    """Azure's request. Missing points are not filled in: a gap is refused."""

    series: Annotated[list[SeriesPoint], Field(min_length=1, max_length=MAX_POINTS, fail_fast=True)]
    granularity: Annotated[str, Field(max_length=32)] = "none"
    custom_interval: int | None = Field(default=None, alias="customInterval")
    period: Period | None = None
    max_anomaly_ratio: Ratio = Field(default=0.25, alias="maxAnomalyRatio")
    sensitivity: Sensitivity = 95
    window: Annotated[int, Field(ge=2, le=MAX_POINTS)] | None = Field(
        default=None, alias="stableTrendWindow"
    )


class AzureEntire(Reply):
    period: int
    expected_values: list[float] = Field(serialization_alias="expectedValues")
    upper_margins: list[float] = Field(serialization_alias="upperMargins")
    lower_margins: list[float] = Field(serialization_alias="lowerMargins")
    is_anomaly: list[bool] = Field(serialization_alias="isAnomaly")
    is_negative_anomaly: list[bool] = Field(serialization_alias="isNegativeAnomaly")
    is_positive_anomaly: list[bool] = Field(serialization_alias="isPositiveAnomaly")
    severity: list[float]


class AzureLast(Reply):
    period: int
    suggested_window: int = Field(serialization_alias="suggestedWindow")
    expected_value: float = Field(serialization_alias="expectedValue")
    upper_margin: float = Field(serialization_alias="upperMargin")
    lower_margin: float = Field(serialization_alias="lowerMargin")
    is_anomaly: bool = Field(serialization_alias="isAnomaly")
    is_negative_anomaly: bool = Field(serialization_alias="isNegativeAnomaly")
    is_positive_anomaly: bool = Field(serialization_alias="isPositiveAnomaly")
    severity: float


class AzureChangePoints(Reply):
    period: int
    is_change_point: list[bool] = Field(serialization_alias="isChangePoint")
    confidence_scores: list[float] = Field(serialization_alias="confidenceScores")


async def timeseries(server: Server, request: Request, body: SeriesBody) -> SeriesReply:
    """Judge every value of one series by its trend and season, or by what changes at it."""
    del request
    points = [p if isinstance(p, SeriesPoint) else SeriesPoint(value=p) for p in body.series]
    job = SeriesRequest(
        tuple(point.value for point in points),
        body.detector,
        body.period,
        body.sensitivity,
        body.max_anomaly_ratio,
        body.window,
    )
    result = await server.clients.anomaly.detect_series(library(server).id, job, last=False)
    columns: Any = (
        result.observed, result.expected, result.lower, result.upper,
        result.anomalous, result.severity,
    )  # fmt: skip
    rows = zip(points, *(column.tolist() for column in columns), strict=True)
    names = ("observed", "expected", "lower", "upper", "is_anomaly", "severity")
    data = [
        JudgedPoint(
            index=index,
            timestamp=point.timestamp,
            value=point.value,
            **dict(zip(names, cells, strict=True)),
        )
        for index, (point, *cells) in enumerate(rows)
    ]
    count = int(result.anomalous.sum())
    summary = SeriesSummary(
        total_points=len(data), anomaly_count=count, anomaly_rate=count / len(data)
    )
    return SeriesReply(detector=body.detector, period=result.period, data=data, summary=summary)


async def azure_entire(server: Server, request: Request, body: AzureBody) -> AzureEntire:
    """Azure's detection of the anomalies of a whole series."""
    del request
    result = await _azure(server, body)
    return AzureEntire(
        period=result.period,
        expected_values=result.expected.tolist(),
        upper_margins=(result.upper - result.expected).tolist(),
        lower_margins=(result.expected - result.lower).tolist(),
        is_anomaly=result.anomalous.tolist(),
        is_negative_anomaly=(result.anomalous & (result.observed < result.expected)).tolist(),
        is_positive_anomaly=(result.anomalous & (result.observed > result.expected)).tolist(),
        severity=result.severity.tolist(),
    )


async def azure_last(server: Server, request: Request, body: AzureBody) -> AzureLast:
    """Azure's judgement of the last point by those before it."""
    del request
    result = await _azure(server, body, last=True)
    anomalous = bool(result.anomalous[0])
    above = bool(result.observed[0] > result.expected[0])
    return AzureLast(
        period=result.period,
        suggested_window=LAST_PERIODS * result.period + 1,
        expected_value=float(result.expected[0]),
        upper_margin=float(result.upper[0] - result.expected[0]),
        lower_margin=float(result.expected[0] - result.lower[0]),
        is_anomaly=anomalous,
        is_negative_anomaly=anomalous and not above,
        is_positive_anomaly=anomalous and above,
        severity=float(result.severity[0]),
    )


async def azure_changes(server: Server, request: Request, body: AzureBody) -> AzureChangePoints:
    """Azure's detection of the points where the level of a series changes."""
    del request
    result = await _azure(server, body, kind="level_shift")
    return AzureChangePoints(
        period=result.period,
        is_change_point=result.anomalous.tolist(),
        confidence_scores=result.severity.tolist(),
    )


async def _azure(
    server: Server, body: AzureBody, *, kind: SeriesKind = "auto", last: bool = False
) -> SeriesResult:
    _check_times(body.series)
    job = SeriesRequest(
        tuple(point.value for point in body.series),
        kind,
        body.period,
        body.sensitivity,
        body.max_anomaly_ratio,
        body.window if kind == "level_shift" else None,
    )
    return await server.clients.anomaly.detect_series(library(server).id, job, last=last)


def _check_times(series: list[SeriesPoint]) -> None:
    """Raises InvalidInputError for times that do not go up, or leave points out."""
    times = [
        (index, _time(index, point.timestamp))
        for index, point in enumerate(series)
        if point.timestamp
    ]
    steps = [(index, time - earlier) for (_, earlier), (index, time) in pairwise(times)]
    for index, step in steps:
        if step <= 0:
            raise InvalidInputError("Timestamps must go up.", f"series.{index}.timestamp")
    shortest = min((step for _, step in steps), default=0.0)
    for index, step in steps:
        # Months differ by three days, a missing point by a whole step.
        if step > 1.5 * shortest:
            message = f"Points are missing before point {index}."
            raise InvalidInputError(message, f"series.{index}.timestamp")


def _time(index: int, text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        message = "A timestamp must be of the form 2026-01-31T00:00:00Z."
        raise InvalidInputError(message, f"series.{index}.timestamp") from None


AZURE = "/anomalydetector/v1.1/timeseries"
ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/anomaly/timeseries",
        timeseries,
        "anomaly",
        body=SeriesBody,
        response=SeriesReply,
    ),
    Endpoint(
        "POST",
        f"{AZURE}/entire/detect",
        azure_entire,
        "anomaly",
        body=AzureBody,
        response=AzureEntire,
    ),
    Endpoint(
        "POST", f"{AZURE}/last/detect", azure_last, "anomaly", body=AzureBody, response=AzureLast
    ),
    Endpoint(
        "POST",
        f"{AZURE}/changepoint/detect",
        azure_changes,
        "anomaly",
        body=AzureBody,
        response=AzureChangePoints,
    ),
)
