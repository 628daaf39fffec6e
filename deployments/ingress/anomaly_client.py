"""The anomaly task as the routes see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import Context
from typing import Any

from config.settings import CoalescingSettings
from deployments.ingress.client_base import BatchClient, within
from deployments.ingress.replicas import Replicas
from models.types.anomaly import (
    AnomalyScoreRequest,
    AnomalyScores,
    BackendInfo,
    DetectorInfo,
    FitJob,
    FitProgress,
    FitRequest,
    NumericTable,
    SeriesRequest,
    SeriesResult,
    StreamInfo,
    StreamRequest,
    StreamResult,
    Table,
    ThresholdRequest,
)


class AnomalyClient(BatchClient[AnomalyScoreRequest, AnomalyScores]):
    """Scores are coalesced; fitting, renaming and deleting run once."""

    def __init__(
        self,
        replicas: Replicas,
        *,
        settings: CoalescingSettings,
        deadline_s: float,
        fit_deadline_s: float,
    ) -> None:
        super().__init__(
            replicas, "score", size=score_size, settings=settings, deadline_s=deadline_s
        )
        self._fit_deadline_s = fit_deadline_s
        self._jobs: set[asyncio.Task[None]] = set()

    async def fit(self, model_id: str, request: FitRequest) -> DetectorInfo:
        """Cancelling the call ends the fit."""
        async with within(self._fit_deadline_s):
            info: DetectorInfo = await self._replicas.call_once("fit", model_id, request)
        return info

    async def fit_progress(self, model_id: str, request: FitRequest) -> AsyncGenerator[FitProgress]:
        """What the fit is at, every second, and at last the detector. Closing it ends the fit."""
        async with within(self._fit_deadline_s):
            items = self._replicas.stream("fit_progress", model_id, request, begun=lambda: True)
            async with aclosing(items):
                async for progress in items:
                    yield progress

    async def start_fit(self, model_id: str, request: FitRequest) -> FitJob:
        """A fit in the background. Its call stays open, so that its replica is not idle."""
        started: asyncio.Future[FitJob] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._attend(model_id, request, started), context=Context())
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        async with within(self._deadline_s):
            return await started

    async def _attend(
        self, model_id: str, request: FitRequest, started: asyncio.Future[FitJob]
    ) -> None:
        items = self._replicas.stream("run_fit_job", model_id, request, begun=lambda: True)
        try:
            async with aclosing(items):
                async for job in items:
                    if not started.done():
                        started.set_result(job)
        except Exception as error:
            if not started.done():
                started.set_exception(error)

    async def fit_job(self, model_id: str, job_id: str) -> FitJob:
        job: FitJob = await self._ask("fit_job", model_id, job_id)
        return job

    async def fit_jobs(self, model_id: str) -> list[FitJob]:
        jobs: list[FitJob] = await self._ask("fit_jobs", model_id)
        return jobs

    async def cancel_fit(self, model_id: str, job_id: str) -> FitJob:
        job: FitJob = await self._ask("cancel_fit", model_id, job_id)
        return job

    async def backends(self, model_id: str) -> list[BackendInfo]:
        infos: list[BackendInfo] = await self._ask("backends", model_id)
        return infos

    async def list_detectors(self, model_id: str) -> list[DetectorInfo]:
        infos: list[DetectorInfo] = await self._ask("list_detectors", model_id)
        return infos

    async def aliases(self, model_id: str) -> dict[str, str]:
        aliases: dict[str, str] = await self._ask("aliases", model_id)
        return aliases

    async def get_detector(self, model_id: str, name: str) -> DetectorInfo:
        info: DetectorInfo = await self._ask("get_detector", model_id, name)
        return info

    async def load_detector(self, model_id: str, name: str) -> DetectorInfo:
        info: DetectorInfo = await self._ask("load_detector", model_id, name)
        return info

    async def detector_versions(self, model_id: str, name: str) -> list[DetectorInfo]:
        infos: list[DetectorInfo] = await self._ask("detector_versions", model_id, name)
        return infos

    async def set_alias(self, model_id: str, alias: str, target: str) -> None:
        await self._ask("set_alias", model_id, alias, target)

    async def rename_detector(self, model_id: str, old: str, new: str) -> DetectorInfo:
        info: DetectorInfo = await self._once("rename_detector", model_id, old, new)
        return info

    async def set_threshold(self, model_id: str, request: ThresholdRequest) -> DetectorInfo:
        info: DetectorInfo = await self._once("set_threshold", model_id, request)
        return info

    async def delete_detector(self, model_id: str, name: str) -> None:
        await self._once("delete_detector", model_id, name)

    async def add_to_stream(self, model_id: str, request: StreamRequest) -> StreamResult:
        """Points that were judged by a replica that died may have joined the window."""
        async with within(self._fit_deadline_s):
            result: StreamResult = await self._replicas.call_once(
                "add_to_stream", model_id, request
            )
        return result

    async def list_streams(self, model_id: str) -> list[StreamInfo]:
        infos: list[StreamInfo] = await self._ask("list_streams", model_id)
        return infos

    async def get_stream(self, model_id: str, name: str) -> StreamInfo:
        info: StreamInfo = await self._ask("get_stream", model_id, name)
        return info

    async def reset_stream(self, model_id: str, name: str) -> StreamInfo:
        info: StreamInfo = await self._once("reset_stream", model_id, name)
        return info

    async def delete_stream(self, model_id: str, name: str) -> None:
        await self._once("delete_stream", model_id, name)

    async def detect_series(
        self, model_id: str, request: SeriesRequest, *, last: bool
    ) -> SeriesResult:
        result: SeriesResult = await self._ask("detect_series", model_id, request, last)
        return result

    async def _ask(self, method: str, *args: Any) -> Any:
        """Of a method that may run twice."""
        async with self._deadline():
            return await self._replicas.call(method, *args)

    async def _once(self, method: str, *args: Any) -> Any:
        async with self._deadline():
            return await self._replicas.call_once(method, *args)


def score_size(request: AnomalyScoreRequest) -> int:
    """In cells, or in bytes of a file."""
    if isinstance(request.table, Table):
        return sum(map(len, request.table.rows))
    if isinstance(request.table, NumericTable):
        return int(request.table.values.size)
    return len(request.table.data)
