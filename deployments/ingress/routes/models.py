"""GET /v1/models: the catalogue as clients see it."""

from __future__ import annotations

import asyncio
from typing import Literal

from starlette.requests import Request

from config.catalog import ModelSpec
from deployments.ingress.schemas import Reply
from deployments.ingress.server import Endpoint, Server
from models.errors import ModelNotFoundError
from models.types import ModelState, ModelStatus

STATE_ORDER: tuple[ModelState, ...] = ("unloaded", "failed", "loading", "loaded")


class ModelObject(Reply):
    """OpenAI's model object; from `task` on the fields are ours."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    task: str
    aliases: list[str]
    description: str
    state: ModelState
    memory_bytes: int
    replicas: int
    reason: str | None = None


class ModelList(Reply):
    object: Literal["list"] = "list"
    data: list[ModelObject]


async def list_models(server: Server, request: Request, body: None) -> ModelList:
    """List every model of the catalogue with its state."""
    del request, body
    statuses = await model_statuses(server)
    return ModelList(data=[_object(spec, statuses) for spec in server.catalog])


async def get_model(server: Server, request: Request, body: None) -> ModelObject:
    """Describe one model; ids may contain slashes."""
    del body
    name = request.path_params["id"]
    spec = server.catalog.find(name)
    if spec is None:
        raise ModelNotFoundError(name)
    return _object(spec, await model_statuses(server))


async def model_statuses(server: Server) -> list[ModelStatus]:
    """What every running replica says of its models; wakes none."""
    clients = server.clients.by_task().values()
    replies = await asyncio.gather(*(client.statuses() for client in clients))
    return [model for replicas in replies for replica in replicas for model in replica.models]


def _object(spec: ModelSpec, statuses: list[ModelStatus]) -> ModelObject:
    mine = [status for status in statuses if status.model_id == spec.id]
    best = max((s.state for s in mine), key=STATE_ORDER.index, default="unloaded")
    return ModelObject(
        id=spec.id,
        created=spec.created,
        owned_by="local",
        task=spec.task,
        aliases=list(spec.aliases),
        description=spec.description,
        state=best,
        memory_bytes=sum(status.memory_bytes for status in mine),
        replicas=sum(status.state == "loaded" for status in mine),
        reason=next((status.reason for status in mine if status.reason), None),
    )


ENDPOINTS = (
    Endpoint("GET", "/v1/models", list_models, "models", response=ModelList),
    Endpoint("GET", "/v1/models/{id:path}", get_model, "models", response=ModelObject),
)
