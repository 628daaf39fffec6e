"""Anomaly detection: detectors that clients fit, kept in a store that every replica shares."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from config.catalog import ModelSpec, Task
from deployments.engines import detectors
from deployments.replica import ModelReplica
from models.base import DetectorLibrary
from models.errors import ModelError
from models.types import AnomalyScoreRequest, AnomalyScores, DetectorInfo, FitRequest


class Anomaly(ModelReplica[DetectorLibrary]):
    """Fits and scores in threads, so that neither keeps the replica from answering."""

    task: ClassVar[Task] = "anomaly"

    def load(self, spec: ModelSpec) -> DetectorLibrary:
        return detectors(spec, self._config, self._resources)

    async def fit(self, model_id: str, request: FitRequest) -> DetectorInfo:
        library = await self._models.get(model_id)
        return await asyncio.to_thread(library.fit, request)

    async def score(
        self, model_id: str, requests: list[AnomalyScoreRequest]
    ) -> list[AnomalyScores | ModelError]:
        """One result or error per request; requests for one detector are one vectorised call."""
        library = await self._models.get(model_id)
        return await asyncio.to_thread(library.score, requests)

    async def list_detectors(self, model_id: str) -> list[DetectorInfo]:
        library = await self._models.get(model_id)
        return await asyncio.to_thread(library.list)

    async def get_detector(self, model_id: str, name: str) -> DetectorInfo:
        """Raises ModelNotFoundError."""
        library = await self._models.get(model_id)
        return await asyncio.to_thread(library.get, name)

    async def delete_detector(self, model_id: str, name: str) -> None:
        """Raises ModelNotFoundError."""
        library = await self._models.get(model_id)
        await asyncio.to_thread(library.delete, name)
