"""POST /v1/anomaly/fit: at once, with progress as events, or as a job in the background."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, field_validator, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.ingress.errors import describe
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.anomaly_models import (
    FittedParameters,
    fitted_parameters,
    library,
    selection_of,
)
from deployments.ingress.routes.anomaly_rows import (
    MEDIA_TYPES,
    DetectorName,
    FileQuery,
    RowsBody,
    rows_reader,
)
from deployments.ingress.schemas import Body, Omittable, Reply, null_is_the_default
from deployments.ingress.server import Endpoint, Server
from deployments.ingress.sse import event_stream
from models.errors import InvalidInputError, ModelNotFoundError
from models.types.anomaly import (
    AnyTable,
    DetectorInfo,
    FitJob,
    FitProgress,
    FitRequest,
    MissingPolicy,
    ScoreNormalization,
)

BackendName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
Encoding = Literal["numeric", "hash", "label", "onehot", "binary", "frequency"]
NETWORKS = ("autoencoder", "vae")


class FitFields(KeepAliveFields, Body):
    """`epochs`, `batch_size` and `scaler_type` are the predecessor's names of parameters."""

    model: DetectorName = "default"
    backend: BackendName = "isolation_forest"
    columns: dict[str, Encoding] | None = Field(default=None, alias="schema")
    contamination: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    normalization: ScoreNormalization = "standardization"
    missing: MissingPolicy = "error"
    parameters: dict[str, float | int | bool | str] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    overwrite: bool = True
    stream: bool = False
    background: bool = False
    epochs: int | None = None
    batch_size: int | None = None
    scaler_type: str | None = None
    polars_config: dict[str, Any] | None = None

    _null = field_validator(
        "model", "backend", "contamination", "normalization", "missing", "parameters", "seed",
        "overwrite", "stream", "background",
        mode="before",
    )(null_is_the_default)  # fmt: skip

    @model_validator(mode="after")
    def _one_way_to_wait(self) -> FitFields:
        if self.stream and self.background:
            raise InvalidInputError("A fit is either streamed or in the background.", "background")
        if self.polars_config and self.polars_config.get("enabled", True):
            raise InvalidInputError(
                "Rolling features are those of /v1/anomaly/stream.", "polars_config"
            )
        return self

    @property
    def all_parameters(self) -> dict[str, float | int | bool | str]:
        """With those that the predecessor has at the top; networks alone have epochs."""
        found: dict[str, float | int | bool | str] = {}
        if self.backend in NETWORKS:
            if self.epochs is not None:
                found["epochs"] = self.epochs
            if self.batch_size is not None:
                found["batch_size"] = self.batch_size
        if self.scaler_type is not None:
            found["scaler"] = self.scaler_type
        return found | self.parameters


class FitBody(FitFields, RowsBody):
    pass


class FitQuery(FitFields, FileQuery):
    pass


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
    selection: Omittable[dict[str, Any]] = None
    saved_path: str
    status: Literal["fitted"] = "fitted"


class JobError(Reply):
    message: str
    type: str
    code: str | None


class JobReply(Reply):
    """A fit in the background; times are Unix seconds, null for what has not come yet."""

    id: str
    object: Literal["anomaly.fit_job"] = "anomaly.fit_job"
    model: str
    backend: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    created_at: int
    started_at: int | None
    finished_at: int | None
    seconds: float
    error: JobError | None
    result: FitReply | None


class JobList(Reply):
    object: Literal["list"] = "list"
    data: list[JobReply]


async def fit(
    server: Server, request: Request, body: tuple[FitFields, AnyTable]
) -> FitReply | Response:
    """Fit a detector and keep it as the current version of its name."""
    del request
    fields, table = body
    job = _request(fields, table)
    client, model_id = server.clients.anomaly, library(server).id
    if not fields.overwrite:
        await _refuse_existing(server, fields.model)
    if fields.background:
        started = await client.start_fit(model_id, job)
        reply = _job(started)
        headers = {"location": f"/v1/anomaly/jobs/{started.id}"}
        return JSONResponse(reply.model_dump(by_alias=True), 202, headers)
    if fields.stream:
        return await event_stream(_events(client.fit_progress(model_id, job)))
    return fit_reply(await client.fit(model_id, job))


async def _refuse_existing(server: Server, name: str) -> None:
    try:
        await server.clients.anomaly.get_detector(library(server).id, name)
    except ModelNotFoundError:
        return
    raise InvalidInputError(f"There is a detector '{name}' already.", "overwrite")


def _request(fields: FitFields, table: AnyTable) -> FitRequest:
    return FitRequest(
        name=fields.model,
        backend=fields.backend,
        table=table,
        schema=tuple(fields.columns.items()) if fields.columns else None,
        contamination=fields.contamination,
        normalization=fields.normalization,
        parameters=tuple(sorted(fields.all_parameters.items())),
        seed=fields.seed,
        missing=fields.missing,
    )


async def _events(items: AsyncGenerator[FitProgress]) -> AsyncGenerator[bytes]:
    """One event per report; the last one is the reply of a fit that was not streamed."""
    async with aclosing(items):
        async for progress in items:
            if progress.info is not None:
                event = fit_reply(progress.info).model_dump(by_alias=True)
            else:
                event = {
                    "object": "fit_progress",
                    "stage": progress.stage,
                    "elapsed_ms": 1000 * progress.seconds,
                }
            yield b"data: %b\n\n" % orjson.dumps(event)


def fit_reply(info: DetectorInfo) -> FitReply:
    return FitReply(
        model=info.name,
        backend=info.backend,
        version=info.version,
        samples_fitted=info.samples,
        training_time_ms=1000 * info.fit_seconds,
        model_params=fitted_parameters(info),
        encoder=Encoder(features=list(info.features), columns=dict(info.schema)),
        selection=selection_of(info),
        saved_path=f"{info.name}@{info.version}",
    )


async def list_jobs(server: Server, request: Request, body: None) -> JobList:
    """List the fits in the background, the newest first."""
    del request, body
    jobs = await server.clients.anomaly.fit_jobs(library(server).id)
    return JobList(data=[_job(job) for job in jobs])


async def get_job(server: Server, request: Request, body: None) -> JobReply:
    """How a fit in the background goes."""
    del body
    job_id = request.path_params["id"]
    return _job(await server.clients.anomaly.fit_job(library(server).id, job_id))


async def cancel_job(server: Server, request: Request, body: None) -> JobReply:
    """End a fit in the background; what was fitted before stays."""
    del body
    job_id = request.path_params["id"]
    return _job(await server.clients.anomaly.cancel_fit(library(server).id, job_id))


def _job(job: FitJob) -> JobReply:
    return JobReply(
        id=job.id,
        model=job.model,
        backend=job.backend,
        status=job.status,
        created_at=int(job.created),
        started_at=int(job.started) or None,
        finished_at=int(job.finished) or None,
        seconds=max(0.0, (job.finished or job.updated) - job.started) if job.started else 0.0,
        error=_job_error(job.error),
        result=fit_reply(job.info) if job.info else None,
    )


def _job_error(error: Exception | None) -> JobError | None:
    if error is None:
        return None
    answer, body = describe(error)
    message = body["error"]["message"]  # type: ignore[index]
    return JobError(message=message, type=answer.type, code=answer.code)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/anomaly/fit",
        fit,
        "anomaly",
        body=FitBody,
        response=FitReply,
        media_types=MEDIA_TYPES,
        reader=rows_reader(FitBody, FitQuery),
        streams=True,
        also=((202, JobReply),),
    ),
    Endpoint("GET", "/v1/anomaly/jobs", list_jobs, "anomaly", response=JobList),
    Endpoint("GET", "/v1/anomaly/jobs/{id}", get_job, "anomaly", response=JobReply),
    Endpoint("DELETE", "/v1/anomaly/jobs/{id}", cancel_job, "anomaly", response=JobReply),
)
