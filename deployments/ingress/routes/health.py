"""GET /health: alive. GET /ready: can serve."""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.ingress.routes.models import replica_statuses
from deployments.ingress.schemas import Reply
from deployments.ingress.server import DeploymentState, Endpoint, Server
from models.types.status import ModelStatus


class Health(Reply):
    status: Literal["ok"] = "ok"


class DeploymentReadiness(Reply):
    status: str
    replicas: int
    starting: int


class ModelReadiness(Reply):
    id: str
    state: str
    reason: str | None = None


class Readiness(Reply):
    """`ready` is false, and the status 503, while a deployment cannot start replicas."""

    ready: bool
    deployments: dict[str, DeploymentReadiness]
    models: list[ModelReadiness]


async def health(server: Server, request: Request, body: None) -> Health:
    """Answer while the process is alive; asks nobody."""
    del server, request, body
    return Health()


async def ready(server: Server, request: Request, body: None) -> Response:
    """Say whether requests can be served, with the state of each deployment and model."""
    del request, body
    deployments = await server.cluster.deployments()
    models = [model for replica in await replica_statuses(server) for model in replica.models]
    able = bool(deployments) and all(_able(state) for state in deployments)
    reply = Readiness(
        ready=able,
        deployments={state.name: _deployment(state) for state in deployments},
        models=[_model(status) for status in models],
    )
    return JSONResponse(reply.model_dump(), 200 if able else 503)


def _able(state: DeploymentState) -> bool:
    return state.status not in {"UNHEALTHY", "DEPLOY_FAILED"}


def _deployment(state: DeploymentState) -> DeploymentReadiness:
    return DeploymentReadiness(
        status=state.status.lower(), replicas=state.replicas, starting=state.starting
    )


def _model(status: ModelStatus) -> ModelReadiness:
    return ModelReadiness(id=status.model_id, state=status.state, reason=status.reason or None)


ENDPOINTS = (
    Endpoint("GET", "/health", health, "health", response=Health),
    Endpoint("GET", "/ready", ready, "health", response=Readiness),
)
