"""In-process stand-ins for what the ingress talks to: replicas without Ray, a cluster, a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from starlette.testclient import TestClient

from config.catalog import BuiltinSource, Catalog, ModelSpec, Task
from config.settings import AppConfig
from deployments.file_store import FileStore
from deployments.ingress.app import make_app
from deployments.ingress.clients import Clients, make_clients
from deployments.ingress.server import DeploymentState, Server
from deployments.metrics.catalog import Metric
from models.types.status import ReplicaStatus

Method = Callable[..., Awaitable[Any]]


class FakeReplicas:
    """Methods by name; `calls` remembers what was called with what."""

    def __init__(
        self,
        methods: dict[str, Method] | None = None,
        streams: dict[str, Callable[..., AsyncGenerator[Any]]] | None = None,
        statuses: list[ReplicaStatus] | None = None,
    ) -> None:
        self.methods = methods or {}
        self.streams = streams or {}
        self.statuses = statuses or []
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    async def call(self, method: str, *args: Any) -> Any:
        self.calls.append((method, args))
        return await self.methods[method](*args)

    call_once = call
    call_again = call

    def stream(self, method: str, *args: Any, begun: Callable[[], bool]) -> AsyncGenerator[Any]:
        self.calls.append((method, args))
        return self.streams[method](*args)

    async def broadcast(self, method: str, *args: Any) -> list[Any]:
        if method == "status":
            return self.statuses
        self.calls.append((method, args))
        return []


class FakeCluster:
    def __init__(self, states: list[DeploymentState] | None = None) -> None:
        self.states = states or [DeploymentState("Ingress", "HEALTHY", 1)]
        self.exporter: str | None = None

    async def deployments(self) -> list[DeploymentState]:
        return self.states

    def metrics_url(self) -> str | None:
        return self.exporter


class FakeMetrics:
    """What was recorded, and that every call had the labels of its metric."""

    def __init__(self) -> None:
        self.totals: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.values: dict[tuple[str, tuple[str, ...]], list[float]] = {}

    def add(self, metric: Metric, amount: float, **labels: str) -> None:
        assert metric.kind == "counter"
        if amount:
            self.totals[self._key(metric, labels)] += amount  # type: ignore[assignment]

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        assert metric.kind == "histogram"
        self.values.setdefault(self._key(metric, labels), []).append(value)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        assert metric.kind == "gauge"
        self.values[self._key(metric, labels)] = [value]

    def flush(self) -> None: ...

    @staticmethod
    def _key(metric: Metric, labels: dict[str, str]) -> tuple[str, tuple[str, ...]]:
        assert set(labels) == set(metric.labels), (metric.name, labels)
        return metric.name, tuple(labels[name] for name in metric.labels)


def spec(model_id: str, task: Task, *aliases: str) -> ModelSpec:
    engine: Any = "detectors" if task == "anomaly" else "toy"
    return ModelSpec(
        id=model_id, task=task, engine=engine, source=BuiltinSource(kind="builtin"), aliases=aliases
    )


CLASSIFIERS = ModelSpec(
    id="classifiers",
    task="classification",
    engine="classifiers",
    source=BuiltinSource(kind="builtin"),
)
MODERATOR = ModelSpec(
    id="moderator",
    task="classification",
    engine="toy",
    source=BuiltinSource(kind="builtin"),
    engine_options={"moderation_labels": {"toxic": "harassment", "insult": "harassment"}},
)


CATALOG = Catalog(
    models=(
        spec("chat-model", "generation", "vendor/chat-model"),
        spec("embedding-model", "embedding"),
        spec("rerank-model", "rerank"),
        CLASSIFIERS,
        spec("classifier-model", "classification"),
        MODERATOR,
        spec("ocr-model", "ocr"),
        spec("detectors", "anomaly"),
    )
)


def make_server(
    replicas: dict[str, FakeReplicas] | None = None,
    *,
    config: AppConfig | None = None,
    catalog: Catalog = CATALOG,
    cluster: FakeCluster | None = None,
    metrics: FakeMetrics | None = None,
) -> Server:
    """A server whose tasks are the given fakes; tasks that are not given fail when called.

    It answers to any host name, unless the settings name some.
    """
    config = config or AppConfig()
    if not config.access.allowed_hosts:
        access = config.access.model_copy(update={"allowed_hosts": ("*",)})
        config = config.model_copy(update={"access": access})
    replicas = replicas or {}
    of = {task: replicas.get(task, FakeReplicas()) for task in Clients.__slots__}
    files = FileStore.of(config)
    return Server(
        config,
        catalog,
        make_clients(config, of),
        cluster or FakeCluster(),
        files,
        metrics or FakeMetrics(),
    )


def make_client(replicas: dict[str, FakeReplicas] | None = None, **options: Any) -> TestClient:
    return TestClient(make_app(make_server(replicas, **options)))
