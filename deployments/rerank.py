"""Reranking."""

from __future__ import annotations

from typing import ClassVar

from config.catalog import ModelSpec, Task
from deployments.engines import reranker
from deployments.replica import ModelReplica, batched
from models.base import Reranker
from models.errors import ModelError
from models.types.texts import RerankRequest, RerankResult


class Rerank(ModelReplica[Reranker]):
    """Cross-encoders: a query and documents in, one score per document out."""

    task: ClassVar[Task] = "rerank"

    def load(self, spec: ModelSpec) -> Reranker:
        return reranker(spec, self._config, self.resources_of(spec))

    async def rank(
        self, model_id: str, requests: list[RerankRequest]
    ) -> list[RerankResult | ModelError]:
        return await batched(self._models.use(model_id), requests)
