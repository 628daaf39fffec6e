"""The ingress deployment: Serve's handles in, the HTTP application out."""

from __future__ import annotations

import asyncio
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatusOverview
from starlette.types import ASGIApp

from config.catalog import Catalog
from config.settings import AppConfig
from deployments.file_store import FileStore
from deployments.handles import TaskHandle
from deployments.ingress.app import make_app
from deployments.ingress.clients import make_clients
from deployments.ingress.server import DeploymentState, Server


class Ingress:
    """Stays up while the tasks scale to zero; never imports an engine."""

    def __init__(
        self, config: AppConfig, catalog: Catalog, tasks: dict[str, DeploymentHandle[Any]]
    ) -> None:
        replicas = {task: TaskHandle(task, handle) for task, handle in tasks.items()}
        clients = make_clients(config, replicas)
        self._server = Server(config, catalog, clients, ServeCluster(), FileStore.of(config))

    def asgi_app(self) -> ASGIApp:
        return make_app(self._server)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self.asgi_app()


class ServeCluster:
    """The application's deployments as Serve's controller reports them."""

    async def deployments(self) -> list[DeploymentState]:
        name = serve.get_replica_context().app_name
        status = await asyncio.to_thread(serve.status)
        application: ApplicationStatusOverview | None = status.applications.get(name)
        if application is None:
            return []
        return [
            DeploymentState(
                name=deployment,
                status=str(overview.status.value),
                replicas=int(overview.replica_states.get("RUNNING", 0)),
                starting=int(overview.replica_states.get("STARTING", 0)),
            )
            for deployment, overview in application.deployments.items()
        ]
