"""GET /v1/models: the catalogue as clients see it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from starlette.requests import Request

from config.catalog import ModelSpec
from deployments.ingress.schemas import Reply
from deployments.ingress.server import Endpoint, Server
from models.errors import ModelNotFoundError
from models.types.status import ModelState, ModelStatus, ReplicaStatus

STATE_ORDER: tuple[ModelState, ...] = ("unloaded", "failed", "downloading", "loading", "loaded")


class ModelInstance(Reply):
    """A model in one replica of its task."""

    replica: str
    node: str
    state: ModelState
    memory_bytes: int
    load_seconds: float
    in_flight: int
    pinned: bool
    expires_in_s: float | None
    percent: float | None
    reason: str | None


class ModelObject(Reply):
    """OpenAI's model object; from `task` on the fields are ours.

    `instances` are those of all replicas; the fields before sum them up.
    """

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
    reason: str | None
    percent: float | None
    pinned: bool
    in_flight: int
    expires_in_s: float | None
    instances: list[ModelInstance]


class ModelList(Reply):
    object: Literal["list"] = "list"
    data: list[ModelObject]


async def list_models(server: Server, request: Request, body: None) -> ModelList:
    """List every model of the catalogue with its state."""
    del request, body
    instances = await _instances(server)
    return ModelList(data=[_object(spec, instances.get(spec.id, ())) for spec in server.catalog])


async def get_model(server: Server, request: Request, body: None) -> ModelObject:
    """Describe one model; ids may contain slashes."""
    del body
    return await describe_model(server, find_model(server, request.path_params["id"]))


def find_model(server: Server, name: str) -> ModelSpec:
    """The catalogue's model of that id or alias. Raises ModelNotFoundError."""
    spec = server.catalog.find(name)
    if spec is None:
        raise ModelNotFoundError(name)
    return spec


async def describe_model(server: Server, spec: ModelSpec) -> ModelObject:
    """What the running replicas say of a model; wakes none."""
    return _object(spec, (await _instances(server)).get(spec.id, ()))


async def replica_statuses(server: Server) -> list[ReplicaStatus]:
    """What every running replica says of itself; wakes none."""
    clients = server.clients.by_task().values()
    replies = await asyncio.gather(*(client.statuses() for client in clients))
    return [status for replicas in replies for status in replicas]


async def _instances(server: Server) -> dict[str, list[ModelInstance]]:
    found: dict[str, list[ModelInstance]] = {}
    for replica in await replica_statuses(server):
        for status in replica.models:
            found.setdefault(status.model_id, []).append(_instance(replica, status))
    return found


def _instance(replica: ReplicaStatus, status: ModelStatus) -> ModelInstance:
    return ModelInstance(
        replica=replica.replica_id,
        node=replica.node_id,
        state=status.state,
        memory_bytes=status.memory_bytes,
        load_seconds=status.load_seconds,
        in_flight=status.in_flight,
        pinned=status.pinned,
        expires_in_s=status.expires_in_s,
        percent=percent_of(status),
        reason=status.reason or None,
    )


def percent_of(status: ModelStatus) -> float | None:
    """Of a download whose size is known."""
    if not status.total_bytes:
        return None
    return round(100 * status.done_bytes / status.total_bytes, 1)


def _object(spec: ModelSpec, instances: Sequence[ModelInstance]) -> ModelObject:
    expiries = [i.expires_in_s for i in instances if i.expires_in_s is not None]
    percents = [i.percent for i in instances if i.percent is not None]
    return ModelObject(
        id=spec.id,
        created=spec.created,
        owned_by="local",
        task=spec.task,
        aliases=list(spec.aliases),
        description=spec.description,
        state=max((i.state for i in instances), key=STATE_ORDER.index, default="unloaded"),
        memory_bytes=sum(i.memory_bytes for i in instances),
        replicas=sum(i.state == "loaded" for i in instances),
        reason=next((i.reason for i in instances if i.reason), None),
        percent=max(percents, default=None),
        pinned=any(i.pinned for i in instances),
        in_flight=sum(i.in_flight for i in instances),
        expires_in_s=max(expiries, default=None),
        instances=list(instances),
    )


ENDPOINTS = (
    Endpoint("GET", "/v1/models", list_models, "models", response=ModelList),
    Endpoint("GET", "/v1/models/{id:path}", get_model, "models", response=ModelObject),
)
