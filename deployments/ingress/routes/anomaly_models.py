"""/v1/anomaly/models: the fitted detectors, their versions and names; save and load."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from starlette.requests import Request

from config.catalog import ModelSpec
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.anomaly_rows import DetectorName, DetectorReference
from deployments.ingress.schemas import Body, LenientBody, Omittable, Reply
from deployments.ingress.server import Endpoint, Server
from models.errors import ModelNotFoundError
from models.types.anomaly import DetectorInfo, MissingPolicy, ScoreNormalization, ThresholdRequest


class NamedBody(KeepAliveFields, LenientBody):
    """`backend` is accepted for the predecessor's clients; a name says enough."""

    model: DetectorReference = "default"
    backend: Annotated[str, Field(max_length=64)] | None = None


class RenameBody(Body):
    name: DetectorName


class AliasBody(Body):
    alias: DetectorName


class ThresholdBody(Body):
    """Another threshold, given or learned from the training rows again."""

    threshold: float | None = None
    contamination: Annotated[float, Field(gt=0, le=0.5)] | None = None
    normalization: ScoreNormalization | None = None

    @model_validator(mode="after")
    def _one_is_given(self) -> ThresholdBody:
        if (self.threshold is None) == (self.contamination is None):
            raise ValueError("either 'threshold' or 'contamination' is needed")
        return self


class FittedParameters(Reply):
    backend: str
    contamination: float
    threshold: float
    normalization: ScoreNormalization
    input_dim: int
    parameters: dict[str, float | int | str]


class Detector(Reply):
    """A fitted detector. `filename` is the predecessor's name for it."""

    id: str
    object: Literal["anomaly.model"] = "anomaly.model"
    backend: str
    version: int
    created: int
    modified: int
    filename: str
    size_bytes: int
    samples: int
    features: list[str]
    columns: dict[str, str] = Field(serialization_alias="schema")
    contamination: float
    threshold: float
    normalization: ScoreNormalization
    missing: MissingPolicy
    parameters: dict[str, float | int | str]
    aliases: list[str]
    selection: Omittable[dict[str, Any]] = None


class DetectorList(Reply):
    object: Literal["list"] = "list"
    data: list[Detector]


class Deleted(Reply):
    id: str
    object: Literal["anomaly.model"] = "anomaly.model"
    deleted: Literal[True] = True


class AliasReply(Reply):
    object: Literal["anomaly.alias"] = "anomaly.alias"
    alias: str
    model: str


class SaveReply(Reply):
    """What is stored already; `path` names it in requests."""

    object: Literal["save_result"] = "save_result"
    model: str
    backend: str
    version: int
    path: str
    filename: str
    encoder_path: str
    size_bytes: int
    status: Literal["saved"] = "saved"


class LoadReply(Reply):
    object: Literal["load_result"] = "load_result"
    model: str
    backend: str
    version: int
    filename: str
    is_fitted: Literal[True] = True
    threshold: float
    normalization: ScoreNormalization
    encoder_loaded: Literal[True] = True
    encoder_schema: dict[str, str]
    status: Literal["loaded"] = "loaded"


def library(server: Server) -> ModelSpec:
    """The catalogue's entry of all fitted detectors."""
    return server.model(None, "anomaly")


async def list_detectors(server: Server, request: Request, body: None) -> DetectorList:
    """List the fitted detectors."""
    del request, body
    client, model_id = server.clients.anomaly, library(server).id
    infos = await client.list_detectors(model_id)
    aliases = await client.aliases(model_id)
    return DetectorList(data=[_detector(info, aliases) for info in infos])


async def get_detector(server: Server, request: Request, body: None) -> Detector:
    """Describe one fitted detector, or one version of it."""
    del body
    client, model_id = server.clients.anomaly, library(server).id
    info = await client.get_detector(model_id, request.path_params["name"])
    return _detector(info, await client.aliases(model_id))


async def list_versions(server: Server, request: Request, body: None) -> DetectorList:
    """List the versions of a detector that are kept, the current one first."""
    del body
    client, model_id = server.clients.anomaly, library(server).id
    infos = await client.detector_versions(model_id, request.path_params["name"])
    aliases = await client.aliases(model_id)
    return DetectorList(data=[_detector(info, aliases) for info in infos])


async def delete_detector(server: Server, request: Request, body: None) -> Deleted:
    """Delete a fitted detector with all its versions, one version as name@3, or an alias."""
    del body
    name = request.path_params["name"]
    await server.clients.anomaly.delete_detector(library(server).id, name)
    return Deleted(id=name)


async def delete_version(server: Server, request: Request, body: None) -> Deleted:
    """Delete one version of a detector."""
    del body
    name, version = request.path_params["name"], request.path_params["version"]
    if "@" in name or not (version.isdecimal() and version.isascii() and len(version) < 10):
        raise ModelNotFoundError(f"{name}@{version}")
    reference = f"{name}@{version}"
    await server.clients.anomaly.delete_detector(library(server).id, reference)
    return Deleted(id=reference)


async def rename(server: Server, request: Request, body: RenameBody) -> Detector:
    """Give a detector, with all its versions, another name."""
    client, model_id = server.clients.anomaly, library(server).id
    info = await client.rename_detector(model_id, request.path_params["name"], body.name)
    return _detector(info, await client.aliases(model_id))


async def set_alias(server: Server, request: Request, body: AliasBody) -> AliasReply:
    """Let an alias stand for a detector, or for one version of it as name@3."""
    client, model_id, name = server.clients.anomaly, library(server).id, request.path_params["name"]
    await client.set_alias(model_id, body.alias, name)
    return AliasReply(alias=body.alias, model=name)


async def set_threshold(server: Server, request: Request, body: ThresholdBody) -> Detector:
    """Judge a detector's scores by another threshold, as a new version, without a fit."""
    client, model_id = server.clients.anomaly, library(server).id
    info = await client.set_threshold(
        model_id,
        ThresholdRequest(
            request.path_params["name"], body.threshold, body.contamination, body.normalization
        ),
    )
    return _detector(info, await client.aliases(model_id))


async def save(server: Server, request: Request, body: NamedBody) -> SaveReply:
    """Say what is stored of a detector; every fit is stored before it is answered."""
    del request
    info = await server.clients.anomaly.get_detector(library(server).id, body.model)
    return SaveReply(
        model=info.name,
        backend=info.backend,
        version=info.version,
        path=f"{info.name}@{info.version}",
        filename=_filename(info),
        encoder_path=f"{info.name}@{info.version}",
        size_bytes=info.size_bytes,
    )


async def load(server: Server, request: Request, body: NamedBody) -> LoadReply:
    """Have a detector in memory before its first score; scoring loads by itself."""
    del request
    info = await server.clients.anomaly.load_detector(library(server).id, body.model)
    return LoadReply(
        model=info.name,
        backend=info.backend,
        version=info.version,
        filename=_filename(info),
        threshold=info.threshold,
        normalization=info.normalization,
        encoder_schema=dict(info.schema),
    )


def fitted_parameters(info: DetectorInfo) -> FittedParameters:
    return FittedParameters(
        backend=info.backend,
        contamination=info.contamination,
        threshold=info.threshold,
        normalization=info.normalization,
        input_dim=len(info.features),
        parameters=dict(info.parameters),
    )


def selection_of(info: DetectorInfo) -> dict[str, Any] | None:
    """Why "auto" chose the backend."""
    if info.selection is None:
        return None
    candidates = [
        {"backend": c.backend, "agreement": c.agreement, "stability": c.stability}
        for c in info.selection.candidates
    ]
    return {"rows": info.selection.rows, "candidates": candidates}


def _filename(info: DetectorInfo) -> str:
    return f"{info.name}_{info.backend}.skops"


def _detector(info: DetectorInfo, aliases: dict[str, str]) -> Detector:
    return Detector(
        id=info.name,
        backend=info.backend,
        version=info.version,
        created=info.created,
        modified=info.created,
        filename=_filename(info),
        size_bytes=info.size_bytes,
        samples=info.samples,
        features=list(info.features),
        columns=dict(info.schema),
        contamination=info.contamination,
        threshold=info.threshold,
        normalization=info.normalization,
        missing=info.missing,
        parameters=dict(info.parameters),
        selection=selection_of(info),
        aliases=sorted(
            alias
            for alias, target in aliases.items()
            if target in (info.name, f"{info.name}@{info.version}")
        ),
    )


MODEL = "/v1/anomaly/models/{name}"
ENDPOINTS = (
    Endpoint("POST", "/v1/anomaly/save", save, "anomaly", body=NamedBody, response=SaveReply),
    Endpoint("POST", "/v1/anomaly/load", load, "anomaly", body=NamedBody, response=LoadReply),
    Endpoint("GET", "/v1/anomaly/models", list_detectors, "anomaly", response=DetectorList),
    Endpoint("GET", MODEL, get_detector, "anomaly", response=Detector),
    Endpoint("DELETE", MODEL, delete_detector, "anomaly", response=Deleted),
    Endpoint("GET", f"{MODEL}/versions", list_versions, "anomaly", response=DetectorList),
    Endpoint(
        "DELETE", f"{MODEL}/versions/{{version}}", delete_version, "anomaly", response=Deleted
    ),
    Endpoint("POST", f"{MODEL}/rename", rename, "anomaly", body=RenameBody, response=Detector),
    Endpoint(
        "POST",
        f"{MODEL}/threshold",
        set_threshold,
        "anomaly",
        body=ThresholdBody,
        response=Detector,
    ),
    Endpoint("POST", f"{MODEL}/alias", set_alias, "anomaly", body=AliasBody, response=AliasReply),
)
