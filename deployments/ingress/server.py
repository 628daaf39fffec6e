"""What a route may use: the catalogue, the limits, a client per task. And what a route is."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from config.catalog import Catalog, ModelSpec, Task
from config.settings import AppConfig
from deployments.file_store import FileStore
from deployments.ingress.clients import Clients
from deployments.ingress.observing.request_record import note_model
from deployments.metrics.catalog import Metrics
from models.errors import (
    InvalidInputError,
    ModelNotFoundError,
    NoModelForTaskError,
    UnsupportedTaskError,
)

PATH_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """What Serve says of one deployment; `replicas` are the running ones."""

    name: str
    status: str
    replicas: int
    starting: int = 0


class Cluster(Protocol):
    """Serve's own view of the application; asking wakes nothing."""

    async def deployments(self) -> list[DeploymentState]: ...

    def metrics_url(self) -> str | None:
        """Where this node's metrics are exported; None where they are not. Blocking."""


async def running_replicas(cluster: Cluster, task: str) -> int:
    """Of the deployment of a task, which is named after it."""
    return sum(s.replicas for s in await cluster.deployments() if s.name.lower() == task)


@dataclass(frozen=True, slots=True)
class Server:
    """One ingress replica's state, given to every route."""

    config: AppConfig
    catalog: Catalog
    clients: Clients
    cluster: Cluster
    files: FileStore
    metrics: Metrics

    def model(self, name: str | None, task: Task) -> ModelSpec:
        """The model of that id or alias, or the task's first model when none is named.

        Raises ModelNotFoundError, UnsupportedTaskError. Never answers with another model.
        """
        spec = self._default_model(task) if name is None else self._named_model(name, task)
        note_model(spec.task, spec.id)
        return spec

    def _named_model(self, name: str, task: Task) -> ModelSpec:
        spec = self.catalog.find(name)
        if spec is None:
            raise ModelNotFoundError(name)
        if spec.task != task:
            message = f"The model '{spec.id}' serves {spec.task}, not {task}."
            raise UnsupportedTaskError(message, "model")
        return spec

    def _default_model(self, task: Task) -> ModelSpec:
        specs = self.catalog.of_task(task)
        if not specs:
            raise NoModelForTaskError(task)
        return specs[0]


def check_count(param: str, count: int, limit: int) -> None:
    """Raises InvalidInputError when there are too many of something."""
    if count > limit:
        raise InvalidInputError(f"'{param}' has {count} items; the limit is {limit}.", param)


def check_choices(n: int, limit: int) -> None:
    """Raises InvalidInputError when a prompt is to have too many choices."""
    if n > limit:
        raise InvalidInputError(f"'n' is {n}; the limit is {limit}.", "n")


def check_texts(server: Server, param: str, texts: Sequence[str | Sequence[int]]) -> None:
    """Raises InvalidInputError when one text, or all of them together, are too long."""
    limits = server.config.limits
    longest = max(map(len, texts), default=0)
    if longest > limits.max_input_chars:
        message = f"'{param}' has a text of {longest} characters; "
        raise InvalidInputError(message + f"the limit is {limits.max_input_chars}.", param)
    total = sum(map(len, texts))
    if total > limits.max_total_chars:
        message = f"'{param}' has {total} characters in all; "
        raise InvalidInputError(message + f"the limit is {limits.max_total_chars}.", param)


Handler = Callable[[Server, Request, Any], Awaitable[Response | BaseModel]]
Reader = Callable[[Server, Request], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route: how it is called, what it takes, what it answers.

    The handler gets the parsed `body` (None where the endpoint has none) and returns a schema or a
    finished response. The table of endpoints is what the application, the OpenAPI document and the
    tests are made from.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    handler: Handler
    tag: str
    body: type[BaseModel] | None = None
    response: type[BaseModel] | None = None
    media_types: tuple[str, ...] = ("application/json",)
    """What the body may be sent as; others than JSON need a `reader`."""
    reader: Reader | None = None
    """Reads the body instead of `read_json`, limits included."""
    uploads: bool = False
    """The body carries images: the larger size limit holds."""
    streams: bool = False
    """May answer with server-sent events."""
    also: tuple[tuple[int, type[BaseModel]], ...] = ()
    """Statuses of its own beside 200 and those of errors, with their schemas."""

    @property
    def name(self) -> str:
        """The path as documents, keys and metrics write it: `/v1/models/{id}`."""
        return PATH_PARAMETER.sub(r"{\1}", self.path)

    @property
    def summary(self) -> str:
        return (self.handler.__doc__ or "").strip().partition("\n")[0]
