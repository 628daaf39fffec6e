"""GET /v1/anomaly/backends: which detectors there are, and when to use them."""

from __future__ import annotations

from typing import Any, Literal

from starlette.requests import Request

from deployments.ingress.routes.anomaly_models import library
from deployments.ingress.schemas import Reply
from deployments.ingress.server import Endpoint, Server
from models.types.anomaly import BackendInfo


class ParameterReply(Reply):
    name: str
    type: str
    default: float | int | str
    minimum: float | None
    maximum: float | None
    choices: list[str]
    description: str


class Backend(Reply):
    """`speed` is the cost of fitting and scoring, `best_for` when to use it."""

    id: str
    name: str
    object: Literal["anomaly.backend"] = "anomaly.backend"
    aliases: list[str]
    category: str
    fit_cost: str
    score_cost: str
    speed: str
    memory: str
    max_rows: int
    best_for: str
    explanation: str
    parameters: list[ParameterReply]


class BackendList(Reply):
    object: Literal["list"] = "list"
    data: list[Backend]


async def list_backends(server: Server, request: Request, body: None) -> BackendList:
    """Describe the backends: category, cost, parameters, when to use them."""
    del request, body
    infos = await server.clients.anomaly.backends(library(server).id)
    return BackendList(data=[_backend(info) for info in infos])


def _backend(info: BackendInfo) -> Backend:
    parameters = [
        ParameterReply(
            name=parameter.name,
            type=parameter.type,
            default=parameter.default,
            minimum=parameter.low,
            maximum=parameter.high,
            choices=list(parameter.choices),
            description=parameter.description,
        )
        for parameter in info.parameters
    ]
    fields: dict[str, Any] = {
        name: getattr(info, name)
        for name in ("name", "category", "fit_cost", "score_cost", "memory", "max_rows")
    }
    return Backend(
        id=info.name,
        aliases=list(info.aliases),
        speed=f"{info.fit_cost} to fit, {info.score_cost} to score",
        best_for=info.use,
        explanation=info.explanation,
        parameters=parameters,
        **fields,
    )


ENDPOINTS = (
    Endpoint("GET", "/v1/anomaly/backends", list_backends, "anomaly", response=BackendList),
)
