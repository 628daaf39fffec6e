"""POST /v1/models/load, unload, pin, unpin, download: the life of models by hand.

A tag of its own: a key that may list models need not be one that may unload them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from config.catalog import ModelSpec
from deployments.ingress.client_base import TaskClient
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.models import ModelObject, describe_model, find_model, percent_of
from deployments.ingress.schemas import LenientBody, ModelName, Reply
from deployments.ingress.server import Endpoint, Server
from deployments.ingress.sse import event_stream
from deployments.model_cache.slot import PINNED
from models.types.status import ModelStatus

TAG = "model control"


class ModelBody(LenientBody):
    model: ModelName


class LoadBody(KeepAliveFields, ModelBody):
    stream: bool = False
    """Tell of the progress with server-sent events."""


class DownloadBody(ModelBody):
    stream: bool = True


class ModelProgress(Reply):
    """An event of a load or a download; the last one is `loaded` or `downloaded`."""

    object: Literal["model.progress"] = "model.progress"
    model: str
    state: str
    percent: float | None = None
    done_bytes: int = 0
    total_bytes: int | None = None


class Success(Reply):
    """llama-server's."""

    success: Literal[True] = True


async def load(server: Server, request: Request, body: LoadBody) -> ModelObject | Response:
    """Load a model and wait for it, for as long as it takes."""
    del request
    spec, client = _find(server, body.model)
    if body.stream:
        return await event_stream(_events(spec, client.load_model(spec.id)))
    await _finished(client.load_model(spec.id))
    return await describe_model(server, spec)


async def unload(server: Server, request: Request, body: ModelBody) -> ModelObject:
    """Let a model leave as soon as no request uses it; wakes nothing."""
    del request
    spec, client = _find(server, body.model)
    await client.keep(spec.id, 0)
    return await describe_model(server, spec)


async def pin(server: Server, request: Request, body: ModelBody) -> ModelObject:
    """Load a model and keep it until it is unpinned or unloaded."""
    del request
    spec, client = _find(server, body.model)
    await _finished(client.load_model(spec.id))
    await client.keep(spec.id, PINNED)
    return await describe_model(server, spec)


async def unpin(server: Server, request: Request, body: ModelBody) -> ModelObject:
    """Let a model leave when it has been idle for the configured time; wakes nothing."""
    del request
    spec, client = _find(server, body.model)
    await client.keep(spec.id, None)
    return await describe_model(server, spec)


async def download(
    server: Server, request: Request, body: DownloadBody
) -> Response | ModelProgress:
    """Fetch the weights of a model of the catalogue, without loading it."""
    del request
    spec, client = _find(server, body.model)
    done = ModelProgress(model=spec.id, state="downloaded", percent=100.0)
    if body.stream:
        return await event_stream(_events(spec, client.download_model(spec.id), done))
    await _finished(client.download_model(spec.id))
    return done


async def load_plainly(server: Server, request: Request, body: ModelBody) -> Success:
    """Load a model, as llama-server does."""
    await load(server, request, LoadBody(model=body.model))
    return Success()


async def unload_plainly(server: Server, request: Request, body: ModelBody) -> Success:
    """Unload a model, as llama-server does."""
    await unload(server, request, body)
    return Success()


def _find(server: Server, name: str) -> tuple[ModelSpec, TaskClient]:
    """Raises ModelNotFoundError."""
    spec = find_model(server, name)
    server.model(spec.id, spec.task)  # noted, so that keep_alive is of this model
    return spec, server.clients.by_task()[spec.task]


async def _finished(statuses: AsyncGenerator[ModelStatus]) -> None:
    async with aclosing(statuses):
        async for _ in statuses:
            pass


async def _events(
    spec: ModelSpec, statuses: AsyncGenerator[ModelStatus], last: ModelProgress | None = None
) -> AsyncGenerator[bytes]:
    async with aclosing(statuses):
        async for status in statuses:
            yield _event(
                ModelProgress(
                    model=spec.id,
                    state=status.state,
                    percent=percent_of(status),
                    done_bytes=status.done_bytes,
                    total_bytes=status.total_bytes,
                )
            )
    if last is not None:
        yield _event(last)


def _event(progress: ModelProgress) -> bytes:
    return b"data: %b\n\n" % progress.model_dump_json().encode()


ENDPOINTS = (
    Endpoint(
        "POST", "/v1/models/load", load, TAG, body=LoadBody, response=ModelObject, streams=True
    ),
    Endpoint("POST", "/v1/models/unload", unload, TAG, body=ModelBody, response=ModelObject),
    Endpoint("POST", "/v1/models/pin", pin, TAG, body=ModelBody, response=ModelObject),
    Endpoint("POST", "/v1/models/unpin", unpin, TAG, body=ModelBody, response=ModelObject),
    Endpoint(
        "POST",
        "/v1/models/download",
        download,
        TAG,
        body=DownloadBody,
        response=ModelProgress,
        streams=True,
    ),
    Endpoint("POST", "/models/load", load_plainly, TAG, body=ModelBody, response=Success),
    Endpoint("POST", "/models/unload", unload_plainly, TAG, body=ModelBody, response=Success),
)
