"""Anomaly detection: detectors that clients fit, kept in a store that every replica shares."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from config.catalog import ModelSpec, Task
from config.settings import AppConfig
from deployments.engines import detectors
from deployments.replica import ModelReplica
from models.errors import ModelError
from models.types.anomaly import (
    AnomalyScoreRequest,
    AnomalyScores,
    BackendInfo,
    DetectorInfo,
    FitJob,
    FitProgress,
    FitRequest,
    SeriesRequest,
    SeriesResult,
    StreamInfo,
    StreamRequest,
    StreamResult,
    ThresholdRequest,
)

if TYPE_CHECKING:
    from models.anomaly.service import AnomalyService

T = TypeVar("T")

PROGRESS_S = 1.0
"""Between two reports of a running fit."""
FIT_THREADS = 64
"""They only wait for processes; the fits themselves are bounded by a setting."""
ENDED = ("succeeded", "failed", "cancelled")


class Anomaly(ModelReplica["AnomalyService"]):
    """Scores in threads and fits in processes, so that neither keeps the replica from answering."""

    task: ClassVar[Task] = "anomaly"

    def __init__(self, specs: Sequence[ModelSpec], config: AppConfig) -> None:
        super().__init__(specs, config)
        self._fit_threads = ThreadPoolExecutor(FIT_THREADS, thread_name_prefix="fit")

    def load(self, spec: ModelSpec) -> AnomalyService:
        return detectors(spec, self._config, self._resources)

    async def fit(self, model_id: str, request: FitRequest) -> DetectorInfo:
        """Cancelling the call ends the fit."""
        cancelled = threading.Event()
        async with self._models.use(model_id) as library:
            try:
                return await self._fitting(library.fit, request, cancelled)
            finally:
                cancelled.set()

    async def fit_progress(self, model_id: str, request: FitRequest) -> AsyncGenerator[FitProgress]:
        """What the fit is at, and at last the detector. Closing the generator ends the fit."""
        cancelled, clock = threading.Event(), asyncio.get_running_loop().time
        start = clock()
        async with self._models.use(model_id) as library:
            fit = self._fitting(library.fit, request, cancelled)
            try:
                yield FitProgress("started", 0.0)
                while not fit.done():
                    await asyncio.wait([fit], timeout=PROGRESS_S)
                    if not fit.done():
                        yield FitProgress("fitting", clock() - start)
                yield FitProgress("stored", clock() - start, await fit)
            finally:
                cancelled.set()

    async def run_fit_job(self, model_id: str, request: FitRequest) -> AsyncGenerator[FitJob]:
        """Start a fit in the background and say how it goes until it ends.

        Closing the generator does not end the fit; while it is open, the replica is not idle.
        """
        async with self._models.use(model_id) as library:
            job = await asyncio.to_thread(library.jobs.start, request)
            yield job
            while job.status not in ENDED:
                await asyncio.sleep(PROGRESS_S)
                job = await asyncio.to_thread(library.jobs.get, job.id)
                yield job

    def _fitting(self, work: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """In a thread that keeps none of the others waiting."""
        return asyncio.get_running_loop().run_in_executor(self._fit_threads, work, *args)

    async def fit_job(self, model_id: str, job_id: str) -> FitJob:
        """Raises ModelNotFoundError."""
        return await self._models.run(model_id, lambda library: library.jobs.get(job_id))

    async def fit_jobs(self, model_id: str) -> list[FitJob]:
        return await self._models.run(model_id, lambda library: library.jobs.list())

    async def cancel_fit(self, model_id: str, job_id: str) -> FitJob:
        """Raises ModelNotFoundError."""
        return await self._models.run(model_id, lambda library: library.jobs.cancel(job_id))

    async def score(
        self, model_id: str, requests: list[AnomalyScoreRequest]
    ) -> list[AnomalyScores | ModelError]:
        """One result or error per request; requests for one detector are one vectorised call."""
        return await self._models.run(model_id, lambda library: library.score(requests))

    async def add_to_stream(self, model_id: str, request: StreamRequest) -> StreamResult:
        """The first fit of a detector is waited for; later ones run in the background."""
        async with self._models.use(model_id) as library:
            return await self._fitting(library.streams.add, request)

    async def list_streams(self, model_id: str) -> list[StreamInfo]:
        return await self._models.run(model_id, lambda library: library.streams.list())

    async def get_stream(self, model_id: str, name: str) -> StreamInfo:
        """Raises ModelNotFoundError, as do the next ones."""
        return await self._models.run(model_id, lambda library: library.streams.get(name))

    async def reset_stream(self, model_id: str, name: str) -> StreamInfo:
        async with self._models.use(model_id) as library:
            return await self._fitting(library.streams.reset, name)

    async def delete_stream(self, model_id: str, name: str) -> None:
        async with self._models.use(model_id) as library:
            await self._fitting(library.streams.delete, name)

    async def detect_series(
        self, model_id: str, request: SeriesRequest, last: bool
    ) -> SeriesResult:
        return await self._models.run(model_id, lambda library: library.judge_series(request, last))

    async def backends(self, model_id: str) -> list[BackendInfo]:
        async with self._models.use(model_id) as library:
            return library.backends()

    async def list_detectors(self, model_id: str) -> list[DetectorInfo]:
        return await self._models.run(model_id, lambda library: library.list())

    async def aliases(self, model_id: str) -> dict[str, str]:
        return await self._models.run(model_id, lambda library: library.aliases())

    async def get_detector(self, model_id: str, name: str) -> DetectorInfo:
        """Raises ModelNotFoundError, as do the next ones."""
        return await self._models.run(model_id, lambda library: library.get(name))

    async def load_detector(self, model_id: str, name: str) -> DetectorInfo:
        return await self._models.run(model_id, lambda library: library.load(name))

    async def detector_versions(self, model_id: str, name: str) -> list[DetectorInfo]:
        return await self._models.run(model_id, lambda library: library.versions(name))

    async def set_alias(self, model_id: str, alias: str, target: str) -> None:
        await self._models.run(model_id, lambda library: library.set_alias(alias, target))

    async def rename_detector(self, model_id: str, old: str, new: str) -> DetectorInfo:
        return await self._models.run(model_id, lambda library: library.rename(old, new))

    async def set_threshold(self, model_id: str, request: ThresholdRequest) -> DetectorInfo:
        return await self._models.run(model_id, lambda library: library.set_threshold(request))

    async def delete_detector(self, model_id: str, name: str) -> None:
        await self._models.run(model_id, lambda library: library.delete(name))
