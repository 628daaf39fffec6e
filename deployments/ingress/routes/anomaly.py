"""/v1/anomaly: fit, score and detect; the fitted detectors; the backends."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request

from config.catalog import ModelSpec
from deployments.ingress.schemas import HARD_COLUMN_LIMIT, HARD_LIST_LIMIT, Body, Reply
from deployments.ingress.server import Endpoint, Server, check_count
from models.errors import InvalidInputError
from models.types import (
    AnomalyScoreRequest,
    AnomalyScores,
    DetectorInfo,
    FitRequest,
    ScoreNormalization,
    Table,
)

DetectorName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.\-]{0,63}$")]
BackendName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
Cell = float | int | bool | str | None
Row = Annotated[list[Cell], Field(max_length=HARD_COLUMN_LIMIT, fail_fast=True)]
NamedRow = Annotated[dict[str, Cell], Field(max_length=HARD_COLUMN_LIMIT)]
Rows = (
    Annotated[list[Row], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)]
    | Annotated[list[NamedRow], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)]
)
Encoding = Literal["numeric", "hash", "label", "onehot", "binary", "frequency"]


class RowsBody(Body):
    """`data` is a list of rows of numbers, or of objects with one key per column."""

    model: DetectorName = "default"
    data: Rows


class FitBody(RowsBody):
    backend: BackendName = "isolation_forest"
    columns: dict[str, Encoding] | None = Field(default=None, alias="schema")
    contamination: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    normalization: ScoreNormalization = "standardization"
    parameters: dict[str, float | int | bool | str] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42


class ScoreBody(RowsBody):
    backend: BackendName | None = None
    threshold: float | None = None
    normalization: ScoreNormalization | None = None


class FittedParameters(Reply):
    backend: str
    contamination: float
    threshold: float
    normalization: ScoreNormalization
    input_dim: int


class Encoder(Reply):
    features: list[str]
    columns: dict[str, str] = Field(serialization_alias="schema")


class FitReply(Reply):
    object: Literal["fit_result"] = "fit_result"
    model: str
    backend: str
    version: int
    samples_fitted: int
    training_time_ms: float
    model_params: FittedParameters
    encoder: Encoder
    status: Literal["fitted"] = "fitted"


class RowScore(Reply):
    index: int
    score: float
    is_anomaly: bool
    raw_score: float


class ScoreSummary(Reply):
    total_points: int
    anomaly_count: int
    anomaly_rate: float
    threshold: float


class ScoreReply(Reply):
    """High score = anomaly; all from one fitted `version`."""

    object: Literal["list"] = "list"
    model: str
    version: int
    data: list[RowScore]
    summary: ScoreSummary


class DetectSummary(Reply):
    anomalies_detected: int
    threshold: float


class DetectReply(Reply):
    """The anomalous rows only, with their index in the request."""

    object: Literal["list"] = "list"
    model: str
    version: int
    data: list[RowScore]
    total_count: int
    summary: DetectSummary


class Detector(Reply):
    id: str
    object: Literal["anomaly.model"] = "anomaly.model"
    backend: str
    version: int
    created: int
    size_bytes: int
    samples: int
    features: list[str]
    contamination: float
    threshold: float
    normalization: ScoreNormalization


class DetectorList(Reply):
    object: Literal["list"] = "list"
    data: list[Detector]


class Deleted(Reply):
    id: str
    object: Literal["anomaly.model"] = "anomaly.model"
    deleted: Literal[True] = True


async def fit(server: Server, request: Request, body: FitBody) -> FitReply:
    """Fit a detector and keep it under a name, replacing what was there."""
    del request
    start = time.perf_counter()
    job = FitRequest(
        name=body.model,
        backend=body.backend,
        table=_table(server, body.data),
        schema=tuple(body.columns.items()) if body.columns else None,
        contamination=body.contamination,
        normalization=body.normalization,
        parameters=tuple(sorted(body.parameters.items())),
        seed=body.seed,
    )
    info = await server.clients.anomaly.fit(_library(server).id, job)
    elapsed = info.fit_seconds or time.perf_counter() - start
    return FitReply(
        model=info.name,
        backend=info.backend,
        version=info.version,
        samples_fitted=info.samples,
        training_time_ms=1000 * elapsed,
        model_params=FittedParameters(
            backend=info.backend,
            contamination=info.contamination,
            threshold=info.threshold,
            normalization=info.normalization,
            input_dim=len(info.features),
        ),
        encoder=Encoder(features=list(info.features), columns=dict(info.schema)),
    )


async def score(server: Server, request: Request, body: ScoreBody) -> ScoreReply:
    """Score every row with a fitted detector."""
    del request
    result = await _scores(server, body)
    rows = _rows(result)
    anomalies = sum(result.anomalous)
    return ScoreReply(
        model=body.model,
        version=result.version,
        data=rows,
        summary=ScoreSummary(
            total_points=len(rows),
            anomaly_count=anomalies,
            anomaly_rate=anomalies / len(rows),
            threshold=result.threshold,
        ),
    )


async def detect(server: Server, request: Request, body: ScoreBody) -> DetectReply:
    """Score every row and return the anomalous ones."""
    del request
    result = await _scores(server, body)
    anomalies = [row for row in _rows(result) if row.is_anomaly]
    return DetectReply(
        model=body.model,
        version=result.version,
        data=anomalies,
        total_count=len(anomalies),
        summary=DetectSummary(anomalies_detected=len(anomalies), threshold=result.threshold),
    )


async def list_detectors(server: Server, request: Request, body: None) -> DetectorList:
    """List the fitted detectors."""
    del request, body
    infos = await server.clients.anomaly.list_detectors(_library(server).id)
    return DetectorList(data=[_detector(info) for info in infos])


async def get_detector(server: Server, request: Request, body: None) -> Detector:
    """Describe one fitted detector."""
    del body
    name = request.path_params["name"]
    return _detector(await server.clients.anomaly.get_detector(_library(server).id, name))


async def delete_detector(server: Server, request: Request, body: None) -> Deleted:
    """Delete a fitted detector with all its versions."""
    del body
    name = request.path_params["name"]
    await server.clients.anomaly.delete_detector(_library(server).id, name)
    return Deleted(id=name)


def _library(server: Server) -> ModelSpec:
    return server.model(None, "anomaly")


async def _scores(server: Server, body: ScoreBody) -> AnomalyScores:
    job = AnomalyScoreRequest(
        body.model, _table(server, body.data), body.backend, body.threshold, body.normalization
    )
    return await server.clients.anomaly.submit(_library(server).id, job)


def _table(server: Server, data: list[Any]) -> Table:
    limits = server.config.limits
    check_count("data", len(data), limits.max_rows)
    widest, narrowest = max(map(len, data)), min(map(len, data))
    if narrowest == 0:
        raise InvalidInputError("A row has no columns.", "data")
    if widest > limits.max_columns:
        message = f"A row has {widest} columns; the limit is {limits.max_columns}."
        raise InvalidInputError(message, "data")
    if not isinstance(data[0], dict):
        return Table(tuple(tuple(row) for row in data))
    columns = tuple(data[0])
    for index, row in enumerate(data):
        if row.keys() != data[0].keys():
            message = f"Row {index} does not have the same columns as row 0."
            raise InvalidInputError(message, f"data.{index}")
    return Table(tuple(tuple(row[name] for name in columns) for row in data), columns)


def _rows(result: AnomalyScores) -> list[RowScore]:
    entries = zip(result.scores, result.anomalous, result.raw, strict=True)
    return [
        RowScore(index=index, score=score, is_anomaly=flag, raw_score=raw)
        for index, (score, flag, raw) in enumerate(entries)
    ]


def _detector(info: DetectorInfo) -> Detector:
    return Detector(
        id=info.name,
        backend=info.backend,
        version=info.version,
        created=info.created,
        size_bytes=info.size_bytes,
        samples=info.samples,
        features=list(info.features),
        contamination=info.contamination,
        threshold=info.threshold,
        normalization=info.normalization,
    )


ENDPOINTS = (
    Endpoint("POST", "/v1/anomaly/fit", fit, "anomaly", body=FitBody, response=FitReply),
    Endpoint("POST", "/v1/anomaly/score", score, "anomaly", body=ScoreBody, response=ScoreReply),
    Endpoint("POST", "/v1/anomaly/detect", detect, "anomaly", body=ScoreBody, response=DetectReply),
    Endpoint("GET", "/v1/anomaly/models", list_detectors, "anomaly", response=DetectorList),
    Endpoint("GET", "/v1/anomaly/models/{name}", get_detector, "anomaly", response=Detector),
    Endpoint("DELETE", "/v1/anomaly/models/{name}", delete_detector, "anomaly", response=Deleted),
)
