"""What the replicas of every task share: their models, their status, their health."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

import ray
from ray import serve

from config.catalog import ModelSpec, Task
from config.settings import AppConfig
from deployments.cpu_shares import CpuShares
from deployments.engines import Resources, fetch_weights
from deployments.memory.ledger import MemoryLedger
from deployments.memory.node_ledger import NodeLedger
from deployments.memory.replica_memory import ReplicaMemory, share_of
from deployments.memory.watch import MemoryWatch, tolerance_bytes
from deployments.metrics.ray_metrics import RayMetrics
from deployments.metrics.replica_metrics import ReplicaMetrics
from deployments.model_cache.cache import ModelCache
from deployments.model_cache.loader import ModelLoader
from deployments.model_cache.loads import LoadLimits
from deployments.private_logs import keep_requests_out_of_logs
from deployments.scaling import HELD
from deployments.watchdog import Watchdog
from models.background import in_background
from models.base import BatchModel, Model
from models.devices.detection import NodeProbe, granted_device
from models.devices.host import usable_cpus
from models.errors import EngineDeadError, ModelError
from models.types.status import ModelStatus, ReplicaStatus
from weights.pip_download import Progress

M = TypeVar("M", bound=Model)
RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")
PROGRESS_S = 0.5
"""Between two reports of a load or a download."""


class ModelReplica(Generic[M]):
    """One replica of a task's deployment. It starts empty and loads models on first use."""

    task: ClassVar[Task]

    def __init__(self, specs: Sequence[ModelSpec], config: AppConfig) -> None:
        keep_requests_out_of_logs()
        settings = config.task(self.task)
        self._config = config
        self._watchdog = Watchdog(config.deadlines.stuck_s)
        probe = NodeProbe()
        share = share_of(settings, granted_device(probe, ray.get_gpu_ids()))
        self._reserved = ReplicaMemory(
            lambda spec: fetch_weights(spec, config),
            probe,
            share,
            NodeLedger(),
            reserve_bytes=config.memory_reserve_bytes,
        )
        self._resources = Resources(
            n_threads=self._threads(),
            gpu=share.gpu,
            gpu_part=share.gpu_part,
            planned=self._reserved.options,
        )
        self._metrics = ReplicaMetrics(self.task, RayMetrics())
        self._models: ModelCache[M] = ModelCache(
            specs,
            ModelLoader(self._load, fetch=self.fetch, estimate=self.estimate, ledger=self.ledger()),
            LoadLimits(config.deadlines.load_s, config.deadlines.stuck_load_s),
            ttl_s=settings.model_ttl_s,
            budget_bytes=settings.model_budget_bytes,
            preload=[spec.id for spec in specs if config.preloads(spec)],
            events=self._metrics,
        )
        self._memory = MemoryWatch(tolerance_bytes(settings, share.gpu))

    # --- the steps of a load, each in a thread ------------------------------------------------

    def fetch(self, spec: ModelSpec, progress: Progress) -> None:
        """Have the weights on this node. Raises ModelLoadError."""
        fetch_weights(spec, self._config, progress)

    def estimate(self, spec: ModelSpec) -> int:
        """Bytes of memory that a model will take; 0: unknown. Raises ModelLoadError."""
        return self._reserved.estimate(spec)

    def ledger(self) -> MemoryLedger:
        """Where models ask for their memory."""
        return self._reserved

    def resources_of(self, spec: ModelSpec) -> Resources:
        """What the model may use; its batches are recorded as its own."""
        return replace(self._resources, on_batch=self._metrics.batches_of(spec.id))

    def load(self, spec: ModelSpec) -> M:
        """Load one model; blocking, called in a thread. Raises ModelLoadError."""
        raise NotImplementedError

    def _load(self, spec: ModelSpec) -> M:
        """With the threads that others leave, which step aside for tasks of more urgency."""
        self._resources = replace(self._resources, n_threads=self._threads())
        niceness = self._config.task(self.task).niceness
        model = in_background(lambda: self.load(spec), niceness)
        self._reserved.settle(spec.id, model.memory_bytes)
        return model

    def _threads(self) -> int:
        settings = self._config.task(self.task)
        return settings.threads or CpuShares().threads(settings.num_cpus, usable_cpus())

    # --- the life of models, by the client's wish ---------------------------------------------

    async def load_model(self, model_id: str) -> AsyncGenerator[ModelStatus]:
        """What becomes of a load, and at last of the loaded model. Closing does not end the load.

        Raises ModelError.
        """
        async for status in self._progress(model_id, self._models.load):
            yield status
        yield self._models.state(model_id)

    async def download_model(self, model_id: str) -> AsyncGenerator[ModelStatus]:
        """What becomes of the download of a model's weights. Raises ModelError."""
        async for status in self._progress(model_id, self._models.download):
            yield status

    async def keep_model(self, model_id: str, seconds: float | None) -> None:
        """How long the model stays idle, see `ModelCache.keep`."""
        self._models.keep(model_id, seconds)

    async def _progress(
        self, model_id: str, work: Callable[[str], Any]
    ) -> AsyncGenerator[ModelStatus]:
        running = asyncio.ensure_future(work(model_id))
        try:
            while not running.done():
                await asyncio.wait([running], timeout=PROGRESS_S)
                if not running.done():
                    yield self._models.state(model_id)
            running.result()
        finally:
            running.cancel()

    # --- what Serve asks ----------------------------------------------------------------------

    async def status(self) -> ReplicaStatus:
        """What GET /ready and GET /v1/models show of this replica."""
        context = serve.get_replica_context()
        return ReplicaStatus(
            self.task,
            context.replica_id.unique_id,
            os.getpid(),
            self._models.status(),
            ray.get_runtime_context().get_node_id(),
        )

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For `scaling.py`: whether the replica shall stay although no request needs it."""
        idle_timeout_s = self._config.task(self.task).idle_timeout_s
        return {HELD: float(self._models.holds_replica(idle_timeout_s))}

    async def check_health(self) -> None:
        """Serve asks every second, which is also the pace at which idle models leave and present
        figures are recorded.

        It replaces a replica that raises here.
        """
        self._models.sweep()
        self._metrics.sample(self._models.status(), self._models.loaded())
        self._watchdog.start()
        for model_id, model in self._models.loaded().items():
            if not model.alive:
                raise EngineDeadError(f"The engine of '{model_id}' has stopped.")
        if stuck := self._models.stuck():
            raise EngineDeadError(f"Loads that do not end: {', '.join(stuck)}.")
        if self._models.in_flight:
            return
        if self._models.empty and (complaint := self._memory.complaint()):
            raise EngineDeadError(complaint)

    def shutdown(self) -> None:
        """Free every model; Serve calls `__del__` when the replica stops."""
        self._models.close()

    def __del__(self) -> None:
        self.shutdown()


async def batched(
    used: AbstractAsyncContextManager[BatchModel[RequestT, ResultT]], requests: list[RequestT]
) -> list[ResultT | ModelError]:
    """One result or error per request, in order, by a model of `ModelCache.use`.

    Raises what concerns all of them. Cancelling the call drops what has not been computed yet.
    """
    async with used as model:
        return await asyncio.wrap_future(model.submit(requests))
