"""What the replicas of every task share: their models, their status, their health."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

import ray
from ray import serve

from config.catalog import ModelSpec, Task
from config.settings import AppConfig
from deployments.engines import Resources, threads_of
from deployments.model_cache import ModelCache
from models.base import BatchModel, Model
from models.errors import EngineDeadError, ModelError
from models.types import ReplicaStatus

M = TypeVar("M", bound=Model)
RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")


class ModelReplica(Generic[M]):
    """One replica of a task's deployment. It starts empty and loads models on first use."""

    task: ClassVar[Task]

    def __init__(self, specs: Sequence[ModelSpec], config: AppConfig) -> None:
        self._config = config
        self._resources = Resources(
            n_threads=threads_of(config.task(self.task), os.cpu_count() or 1),
            gpu=bool(ray.get_gpu_ids()),
        )
        self._models: ModelCache[M] = ModelCache(
            specs, self.load, deadline_s=config.deadlines.load_s
        )

    def load(self, spec: ModelSpec) -> M:
        """Load one model; blocking, called in a thread. Raises ModelLoadError."""
        raise NotImplementedError

    async def status(self) -> ReplicaStatus:
        """What GET /ready and GET /v1/models show of this replica."""
        replica_id = serve.get_replica_context().replica_id.unique_id
        return ReplicaStatus(self.task, replica_id, os.getpid(), self._models.status())

    async def check_health(self) -> None:
        """Serve replaces the replica when the thread of an engine has ended."""
        for model_id, model in self._models.loaded().items():
            if not model.alive:
                raise EngineDeadError(f"The engine of '{model_id}' has stopped.")

    def shutdown(self) -> None:
        """Free every model; Serve calls `__del__` when the replica stops."""
        self._models.close()

    def __del__(self) -> None:
        self.shutdown()


class BatchReplica(ModelReplica[BatchModel[RequestT, ResultT]]):
    """A task whose calls carry many clients' requests and whose models batch them."""

    async def answer(self, model_id: str, requests: list[RequestT]) -> list[ResultT | ModelError]:
        """One result or error per request, in order. Raises what concerns all of them.

        Cancelling the call drops what has not been computed yet.
        """
        model = await self._models.get(model_id)
        return await asyncio.wrap_future(model.submit(requests))
