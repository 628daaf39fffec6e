"""Embeddings."""

from __future__ import annotations

from typing import ClassVar

from config.catalog import ModelSpec, Task
from deployments.engines import encoder
from deployments.replica import BatchReplica
from models.base import Encoder
from models.errors import ModelError
from models.types import EmbeddingRequest, EmbeddingResult


class Embedding(BatchReplica[EmbeddingRequest, EmbeddingResult]):
    """Bi-encoders: texts in, vectors out."""

    task: ClassVar[Task] = "embedding"

    def load(self, spec: ModelSpec) -> Encoder:
        return encoder(spec, self._config, self._resources)

    async def embed(
        self, model_id: str, requests: list[EmbeddingRequest]
    ) -> list[EmbeddingResult | ModelError]:
        return await self.answer(model_id, requests)
