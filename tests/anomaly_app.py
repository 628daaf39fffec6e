"""The HTTP application with a real anomaly replica behind it, without Ray."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from config.settings import AppConfig
from deployments.anomaly import Anomaly
from deployments.engines import Resources
from deployments.ingress.app import make_app
from deployments.model_cache.cache import ModelCache
from deployments.model_cache.loader import ModelLoader
from deployments.model_cache.loads import LoadLimits
from tests.fakes import FakeReplicas, make_server, spec


def replica(config: AppConfig) -> Anomaly:
    """As the constructor makes it, but for what it asks Ray."""
    made = Anomaly.__new__(Anomaly)
    made._config = config
    made._resources = Resources(n_threads=1)
    specs = [spec("detectors", "anomaly")]
    made._models = ModelCache(specs, ModelLoader(made.load), LoadLimits(60))
    made._fit_threads = ThreadPoolExecutor(8)
    return made


class LocalReplicas(FakeReplicas):
    """Calls go to the replica in this process; `calls` remembers them."""

    def __init__(self, target: Anomaly) -> None:
        super().__init__()
        self.target = target

    async def call(self, method: str, *args: Any) -> Any:
        self.calls.append((method, args))
        return await getattr(self.target, method)(*args)

    call_once = call

    def stream(self, method: str, *args: Any, begun: Callable[[], bool]) -> AsyncGenerator[Any]:
        self.calls.append((method, args))
        items: AsyncGenerator[Any] = getattr(self.target, method)(*args)
        return items


@contextmanager
def anomaly_client(folder: Path, **settings: Any) -> Iterator[tuple[TestClient, LocalReplicas]]:
    """A client whose requests share one event loop, and what they call."""
    config = AppConfig(data_dir=folder, **settings)
    replicas = LocalReplicas(replica(config))
    app = make_app(make_server({"anomaly": replicas}, config=config))
    try:
        with TestClient(app) as client:
            yield client, replicas
    finally:
        replicas.target.shutdown()
