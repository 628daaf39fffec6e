"""Every task's real deployment class with weightless models, behind the application; no Ray."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from starlette.types import ASGIApp

from config.catalog import Catalog, ModelSpec, Task
from config.settings import AppConfig, DocumentSettings
from deployments.classification import Classification
from deployments.embedding import Embedding
from deployments.generation import Generation
from deployments.ingress.app import make_app
from deployments.ingress.server import Server
from deployments.ocr import Ocr
from deployments.rerank import Rerank
from tests import anomaly_app
from tests.fakes import CLASSIFIERS, FakeReplicas, make_server, spec
from tests.security.asgi import JSON, Reply, call
from tests.security.samples import DETECTOR, ROWS, SAMPLES


def toy(model_id: str, task: Task, **options: Any) -> ModelSpec:
    return spec(model_id, task).model_copy(update={"engine_options": options})


CATALOG = Catalog(
    models=(
        spec("chat-model", "generation"),
        spec("embedding-model", "embedding"),
        toy("sparse-model", "embedding", sparse=True),
        spec("rerank-model", "rerank"),
        spec("classifier-model", "classification"),
        toy("entailment-model", "classification", head="entailment"),
        toy("entity-model", "classification", head="token"),
        toy("moderator", "classification", moderation_labels={"positive": "hate"}),
        CLASSIFIERS,
        spec("ocr-model", "ocr"),
        spec("detectors", "anomaly"),
    )
)
CLASSES: dict[str, Any] = {
    "generation": Generation,
    "embedding": Embedding,
    "rerank": Rerank,
    "classification": Classification,
    "ocr": Ocr,
}


class LocalReplicas(FakeReplicas):
    """The one replica of a task, in this process; `calls` stays empty."""

    def __init__(self, target: Any) -> None:
        super().__init__()
        self.target = target

    async def call(self, method: str, *args: Any) -> Any:
        return await getattr(self.target, method)(*args)

    call_once = call_again = call

    def stream(self, method: str, *args: Any, begun: Callable[[], bool]) -> AsyncGenerator[Any]:
        items: AsyncGenerator[Any] = getattr(self.target, method)(*args)
        return items

    async def broadcast(self, method: str, *args: Any) -> list[Any]:
        return [] if method == "status" else [await getattr(self.target, method)(*args)]


class ToyServer:
    """The application, and what its tests ask of it."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self.app = app
        self.server = server
        self.config = server.config
        self.file_id = ""

    async def send(self, endpoint: Any, body: bytes, kind: str = JSON["content-type"]) -> Reply:
        return await call(
            self.app, endpoint.method, path_of(endpoint), body, {"content-type": kind}
        )


def path_of(endpoint: Any) -> str:
    """The path with names of things that exist where it has parameters."""
    path = str(endpoint.path).replace("{id:path}", "chat-model")
    path = path.replace("{name}/rename", "none/rename")  # it would be gone for the others
    return path.replace("{name}", DETECTOR).replace("{id}", "x").replace("{version}", "1")


@asynccontextmanager
async def toy_server(folder: Path) -> AsyncIterator[ToyServer]:
    """With one fitted detector, one fitted classifier and one file."""
    documents = DocumentSettings(max_page_pixels=40_000_000, page_s=6)
    config = AppConfig(data_dir=folder, documents=documents)
    with mock.patch("deployments.replica.ray.get_gpu_ids", list):
        targets = {
            task: made(CATALOG.of_task(task), config)  # type: ignore[arg-type]
            for task, made in CLASSES.items()
        }
    targets["anomaly"] = anomaly_app.replica(config)
    replicas: Any = {task: LocalReplicas(target) for task, target in targets.items()}
    bound = replace(make_server(replicas, config=config), catalog=CATALOG)
    server = ToyServer(make_app(bound), bound)
    try:
        with mock.patch("deployments.model_cache.loader.give_back"):  # which looks at all objects
            await _prepare(server)
            yield server
    finally:
        for target in targets.values():
            target.shutdown()


async def _prepare(server: ToyServer) -> None:
    for path, body in (
        ("/v1/anomaly/fit", {"model": DETECTOR, "backend": "zscore", "data": ROWS}),
        ("/v1/classifier/fit", SAMPLES["/v1/classifier/fit"]),
    ):
        reply = await call(server.app, "POST", path, json.dumps(body).encode(), JSON)
        assert reply.status == 200, reply.text
    form = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\nx\r\n--x--'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    reply = await call(server.app, "POST", "/v1/files", form, kind)
    server.file_id = reply.json()["id"]
