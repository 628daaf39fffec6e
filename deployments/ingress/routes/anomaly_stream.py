"""/v1/anomaly/stream: detectors of streams of points."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request

from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.anomaly_fit import BackendName
from deployments.ingress.routes.anomaly_models import Deleted, library
from deployments.ingress.routes.anomaly_rows import Cell, DetectorName, NamedRow, Row, table_of
from deployments.ingress.schemas import HARD_COLUMN_LIMIT, HARD_LIST_LIMIT, LenientBody, Reply
from deployments.ingress.server import Endpoint, Server, check_count
from models.types.anomaly import StreamInfo, StreamPoint, StreamRequest, StreamSettings

MAX_POINTS = 10_000
"""Points of one request: they are judged under the lock of their detector."""
MAX_WINDOW = 100_000
Steps = Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(max_length=16, fail_fast=True)]
Points = (
    NamedRow
    | Annotated[list[Cell], Field(min_length=1, max_length=HARD_COLUMN_LIMIT, fail_fast=True)]
    | Annotated[list[Row], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)]
    | Annotated[list[NamedRow], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)]
)


class StreamBody(KeepAliveFields, LenientBody):
    """`data` is one point or a list of points; a point is a list of values or an object."""

    model: DetectorName = "default-stream"
    data: Points
    backend: BackendName = "ecod"
    min_samples: Annotated[int, Field(ge=10, le=MAX_WINDOW)] = 50
    retrain_interval: Annotated[int, Field(ge=10, le=10_000_000)] = 100
    window_size: Annotated[int, Field(ge=50, le=MAX_WINDOW)] = 1000
    contamination: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    rolling_windows: Steps = Field(default_factory=list)
    include_lags: bool = False
    lag_periods: Steps = Field(default_factory=list)
    parameters: dict[str, float | int | bool | str] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42

    @property
    def settings(self) -> StreamSettings:
        """Lags are asked for by their periods, or by `include_lags`, which alone means one."""
        lags = self.lag_periods or ([1] if self.include_lags else [])
        return StreamSettings(
            backend=self.backend,
            min_samples=self.min_samples,
            retrain_interval=self.retrain_interval,
            window_size=self.window_size,
            contamination=self.contamination,
            threshold=self.threshold,
            rolling_windows=tuple(sorted(set(self.rolling_windows))),
            lag_periods=tuple(sorted(set(lags))),
            parameters=tuple(sorted(self.parameters.items())),
            seed=self.seed,
        )

    @property
    def given(self) -> tuple[str, ...]:
        """The settings that the request names."""
        names = set(StreamSettings.__dataclass_fields__) & self.model_fields_set
        if "include_lags" in self.model_fields_set:
            names.add("lag_periods")
        return tuple(sorted(names))


class StreamSettingsReply(Reply):
    backend: str
    min_samples: int
    retrain_interval: int
    window_size: int
    contamination: float
    threshold: float | None
    rolling_windows: list[int]
    lag_periods: list[int]
    parameters: dict[str, float | int | bool | str]


class StreamDetector(Reply):
    """`model_version` counts the fits; 0 before the first."""

    id: str
    object: Literal["anomaly.stream"] = "anomaly.stream"
    model: str
    status: Literal["collecting", "ready", "retraining"]
    model_version: int
    samples_collected: int
    samples_until_ready: int
    window: int
    columns: list[str]
    created: int
    settings: StreamSettingsReply


class StreamPointReply(Reply):
    """`score` is null while the detector collects its first points."""

    index: int
    score: float | None
    is_anomaly: bool
    raw_score: float | None
    samples_until_ready: int


class StreamReply(Reply):
    object: Literal["stream_result"] = "stream_result"
    model: str
    status: Literal["collecting", "ready", "retraining"]
    results: list[StreamPointReply]
    model_version: int
    samples_collected: int
    samples_until_ready: int
    threshold: float | None


class StreamList(Reply):
    object: Literal["list"] = "list"
    data: list[StreamDetector]


async def add(server: Server, request: Request, body: StreamBody) -> StreamReply:
    """Judge points by those before them; they join the window of the detector."""
    del request
    data = _points(body.data)
    check_count("data", len(data), MAX_POINTS)
    table = table_of(server, data)
    job = StreamRequest(body.model, table, body.settings, body.given)
    result = await server.clients.anomaly.add_to_stream(library(server).id, job)
    info = result.info
    return StreamReply(
        model=info.name,
        status=info.status,
        results=[_point(index, point) for index, point in enumerate(result.points)],
        model_version=info.version,
        samples_collected=info.samples,
        samples_until_ready=info.until_ready,
        threshold=result.threshold,
    )


def _points(data: Any) -> list[Any]:
    """A list of points, whether one or several were sent."""
    if isinstance(data, dict) or not isinstance(data[0], dict | list):
        return [data]
    return list(data)


def _point(index: int, point: StreamPoint) -> StreamPointReply:
    return StreamPointReply(
        index=index,
        score=point.score,
        is_anomaly=point.anomalous,
        raw_score=point.raw,
        samples_until_ready=point.until_ready,
    )


async def list_streams(server: Server, request: Request, body: None) -> StreamList:
    """List the streaming detectors."""
    del request, body
    infos = await server.clients.anomaly.list_streams(library(server).id)
    return StreamList(data=[_detector(info) for info in infos])


async def get_stream(server: Server, request: Request, body: None) -> StreamDetector:
    """Describe one streaming detector."""
    del body
    name = request.path_params["id"]
    return _detector(await server.clients.anomaly.get_stream(library(server).id, name))


async def reset_stream(server: Server, request: Request, body: None) -> StreamDetector:
    """Forget all points of a streaming detector; its settings stay."""
    del body
    name = request.path_params["id"]
    return _detector(await server.clients.anomaly.reset_stream(library(server).id, name))


async def delete_stream(server: Server, request: Request, body: None) -> Deleted:
    """Delete a streaming detector with all its points."""
    del body
    name = request.path_params["id"]
    await server.clients.anomaly.delete_stream(library(server).id, name)
    return Deleted(id=name)


def _detector(info: StreamInfo) -> StreamDetector:
    settings = info.settings
    return StreamDetector(
        id=info.name,
        model=info.name,
        status=info.status,
        model_version=info.version,
        samples_collected=info.samples,
        samples_until_ready=info.until_ready,
        window=info.window,
        columns=list(info.columns),
        created=int(info.created),
        settings=StreamSettingsReply(
            backend=settings.backend,
            min_samples=settings.min_samples,
            retrain_interval=settings.retrain_interval,
            window_size=settings.window_size,
            contamination=settings.contamination,
            threshold=settings.threshold,
            rolling_windows=list(settings.rolling_windows),
            lag_periods=list(settings.lag_periods),
            parameters=dict(settings.parameters),
        ),
    )


ROOT = "/v1/anomaly/stream"
ENDPOINTS = (
    Endpoint("POST", ROOT, add, "anomaly", body=StreamBody, response=StreamReply),
    Endpoint("GET", f"{ROOT}/detectors", list_streams, "anomaly", response=StreamList),
    Endpoint("GET", f"{ROOT}/{{id}}", get_stream, "anomaly", response=StreamDetector),
    Endpoint("DELETE", f"{ROOT}/{{id}}", delete_stream, "anomaly", response=Deleted),
    Endpoint("POST", f"{ROOT}/{{id}}/reset", reset_stream, "anomaly", response=StreamDetector),
)
