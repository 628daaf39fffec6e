"""The ingress deployment: Serve's handles in, the HTTP application out."""

from __future__ import annotations

import asyncio
from functools import cached_property, partial
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatusOverview
from starlette.types import ASGIApp

from config.catalog import Catalog
from config.settings import AppConfig
from deployments.file_store import FileStore
from deployments.handles.task_handle import TaskHandle
from deployments.handles.wake_deadline import WakeDeadline
from deployments.ingress.app import make_app
from deployments.ingress.clients import make_clients
from deployments.ingress.observing.log_files import write_each_line_once
from deployments.ingress.server import Cluster, DeploymentState, Server, running_replicas
from deployments.ingress.shared_call import SharedCall
from deployments.metrics.ray_metrics import RayMetrics
from deployments.private_logs import keep_requests_out_of_logs
from deployments.spare_process import RayletPool, SpareProcess


class Ingress:
    """Stays up while the tasks scale to zero; never imports an engine."""

    def __init__(
        self, config: AppConfig, catalog: Catalog, tasks: dict[str, DeploymentHandle[Any]]
    ) -> None:
        keep_requests_out_of_logs()
        write_each_line_once("ray.serve")
        cluster = ServeCluster()
        replicas = {
            task: TaskHandle(task, handle, _wake_deadline(config, cluster, task))
            for task, handle in tasks.items()
        }
        clients = make_clients(config, replicas)
        self._server = Server(config, catalog, clients, cluster, FileStore.of(config), RayMetrics())
        self._spare = SpareProcess(RayletPool()) if config.ingress.spare_process else None

    def asgi_app(self) -> ASGIApp:
        return make_app(self._server)

    async def check_health(self) -> None:
        """Serve asks every second, which is also the pace at which figures leave."""
        self._server.metrics.flush()
        if self._spare:
            self._spare.check()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self.asgi_app()


def _wake_deadline(config: AppConfig, cluster: Cluster, task: str) -> WakeDeadline:
    return WakeDeadline(task, partial(running_replicas, cluster, task), config.deadlines.load_s)


class ServeCluster:
    """The application's deployments as Serve's controller reports them."""

    def __init__(self) -> None:
        # Every request of a burst may want to know, and the answer costs more than most of them.
        self.deployments = SharedCall(self._deployments)

    async def _deployments(self) -> list[DeploymentState]:
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

    @cached_property
    def _metrics_url(self) -> str | None:
        """Ray tells where each node exports its metrics; that stays for the life of the node."""
        node_id = ray.get_runtime_context().get_node_id()
        node = next(node for node in ray.nodes() if node["NodeID"] == node_id)
        host, port = node["NodeManagerAddress"], node["MetricsExportPort"]
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{port}/metrics" if port else None

    def metrics_url(self) -> str | None:
        return self._metrics_url
