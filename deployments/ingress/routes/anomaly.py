"""POST /v1/anomaly/score and /detect: rows to scores, as JSON, CSV or Arrow."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, field_validator
from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes import (
    anomaly_backends,
    anomaly_fit,
    anomaly_models,
    anomaly_series,
    anomaly_stream,
)
from deployments.ingress.routes.anomaly_fit import BackendName
from deployments.ingress.routes.anomaly_models import library
from deployments.ingress.routes.anomaly_rows import (
    MEDIA_TYPES,
    DetectorReference,
    FileQuery,
    RowsBody,
    rows_reader,
)
from deployments.ingress.routes.anomaly_tables import as_arrow, as_csv, wanted
from deployments.ingress.schemas import Body, Omittable, Reply, null_is_the_default
from deployments.ingress.server import Endpoint, Server
from models.types.anomaly import (
    AnomalyScoreRequest,
    AnomalyScores,
    AnyTable,
    Contribution,
    ScoreNormalization,
)

EXPLAINED_COLUMNS = 5
INLINE_ROWS = 2000
"""Answers with more are written beside the event loop, where running streams pass."""


class ScoreFields(KeepAliveFields, Body):
    """`explain`: true for the five largest contributions of each row, or how many."""

    model: DetectorReference = "default"
    backend: BackendName | None = None
    threshold: float | None = None
    normalization: ScoreNormalization | None = None
    explain: bool | Annotated[int, Field(ge=0, le=65_536)] = False

    _null = field_validator("model", "explain", mode="before")(null_is_the_default)


class ScoreBody(ScoreFields, RowsBody):
    pass


class ScoreQuery(ScoreFields, FileQuery):
    pass


class ContributionReply(Reply):
    feature: str
    contribution: float


class RowScore(Reply):
    """`explanation`: what columns add to the raw score, the largest first, where it was asked."""

    index: int
    score: float
    is_anomaly: bool
    raw_score: float
    explanation: Omittable[list[ContributionReply]] = None


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


async def score(server: Server, request: Request, body: tuple[ScoreFields, AnyTable]) -> Response:
    """Score every row with a fitted detector."""
    fields, result = body[0], await _scores(server, *body)
    count, anomalies = len(result.scores), sum(result.anomalous)
    summary = {
        "total_points": count,
        "anomaly_count": anomalies,
        "anomaly_rate": anomalies / count,
        "threshold": result.threshold,
    }
    return await _answer(request, fields.model, result, range(count), {"summary": summary})


async def detect(server: Server, request: Request, body: tuple[ScoreFields, AnyTable]) -> Response:
    """Score every row and return the anomalous ones."""
    fields, result = body[0], await _scores(server, *body)
    found = [index for index, flag in enumerate(result.anomalous) if flag]
    summary = {"anomalies_detected": len(found), "threshold": result.threshold}
    rest = {"total_count": len(found), "summary": summary}
    return await _answer(request, fields.model, result, found, rest)


async def _scores(server: Server, fields: ScoreFields, table: AnyTable) -> AnomalyScores:
    explain = EXPLAINED_COLUMNS if fields.explain is True else int(fields.explain)
    job = AnomalyScoreRequest(
        fields.model, table, fields.backend, fields.threshold, fields.normalization, explain
    )
    return await server.clients.anomaly.submit(library(server).id, job)


async def _answer(
    request: Request,
    model: str,
    result: AnomalyScores,
    indices: list[int] | range,
    rest: dict[str, Any],
) -> Response:
    """Written without a schema object per row: there may be a hundred thousand."""
    writers = {"csv": as_csv, "arrow": as_arrow}
    write = writers.get(wanted(request)) or partial(_as_json, model, rest)
    if len(indices) > INLINE_ROWS:
        return await asyncio.to_thread(write, result, indices)
    return write(result, indices)


def _as_json(
    model: str, rest: dict[str, Any], result: AnomalyScores, indices: list[int] | range
) -> Response:
    reply = {
        "object": "list",
        "model": model,
        "version": result.version,
        "data": [_row(result, index) for index in indices],
        **rest,
    }
    return Response(orjson.dumps(reply), media_type="application/json")


def _row(result: AnomalyScores, index: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "index": index,
        "score": result.scores[index],
        "is_anomaly": result.anomalous[index],
        "raw_score": result.raw[index],
    }
    if result.contributions:
        row["explanation"] = [_contribution(part) for part in result.contributions[index]]
    return row


def _contribution(part: Contribution) -> dict[str, Any]:
    return {"feature": part.column, "contribution": part.value}


_READER = rows_reader(ScoreBody, ScoreQuery)
ENDPOINTS = (
    *anomaly_fit.ENDPOINTS,
    Endpoint(
        "POST",
        "/v1/anomaly/score",
        score,
        "anomaly",
        body=ScoreBody,
        response=ScoreReply,
        media_types=MEDIA_TYPES,
        reader=_READER,
    ),
    Endpoint(
        "POST",
        "/v1/anomaly/detect",
        detect,
        "anomaly",
        body=ScoreBody,
        response=DetectReply,
        media_types=MEDIA_TYPES,
        reader=_READER,
    ),
    *anomaly_models.ENDPOINTS,
    *anomaly_backends.ENDPOINTS,
    *anomaly_stream.ENDPOINTS,
    *anomaly_series.ENDPOINTS,
)
