"""Embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from config.catalog import ModelSpec, Task
from config.settings import AppConfig
from deployments.client_tokens import ClientTokens
from deployments.engines import encoder
from deployments.replica import ModelReplica, batched
from models.base import Encoder
from models.encoders.embedding_cache import EmbeddingCache
from models.errors import ModelError
from models.types.texts import EmbeddingRequest, EmbeddingResult, EncoderInfo, TextToken


class Embedding(ModelReplica[Encoder]):
    """Bi-encoders: texts in, vectors out. Answers from its cache where it has one."""

    task: ClassVar[Task] = "embedding"

    def __init__(self, specs: Sequence[ModelSpec], config: AppConfig) -> None:
        super().__init__(specs, config)
        self._tokens = ClientTokens(config)
        self._cache = EmbeddingCache(config.embedding.cache_entries)

    def load(self, spec: ModelSpec) -> Encoder:
        return encoder(spec, self._config, self.resources_of(spec))

    async def embed(
        self, model_id: str, requests: list[EmbeddingRequest]
    ) -> list[EmbeddingResult | ModelError]:
        entries = await self._tokens.readable(requests)
        sound = [entry for entry in entries if not isinstance(entry, ModelError)]
        results = iter(await self._remembered(model_id, sound))
        return [entry if isinstance(entry, ModelError) else next(results) for entry in entries]

    async def describe(self, model_id: str) -> EncoderInfo:
        async with self._models.use(model_id) as model:
            return model.info

    async def tokenize(
        self, model_id: str, texts: Sequence[str], specials: bool, prompt_name: str | None
    ) -> list[list[TextToken]]:
        return await self._models.run(
            model_id,
            lambda model: model.tokenize(texts, specials=specials, prompt_name=prompt_name),
        )

    async def detokenize(
        self, model_id: str, sequences: Sequence[Sequence[int]], skip_specials: bool
    ) -> list[str]:
        return await self._models.run(
            model_id, lambda model: model.detokenize(sequences, skip_specials=skip_specials)
        )

    async def _remembered(
        self, model_id: str, requests: list[EmbeddingRequest]
    ) -> list[EmbeddingResult | ModelError]:
        """The results, computed where the cache does not have them."""
        lookups = [self._cache.look_up(model_id, request) for request in requests]
        if self._config.embedding.cache_entries:
            known = [entry is not None for lookup in lookups for entry in lookup.known]
            self._metrics.looked_up(model_id, len(known), sum(known))
        missing = [lookup.missing for lookup in lookups if lookup.missing is not None]
        computed = iter(await batched(self._models.use(model_id), missing) if missing else ())
        results: list[EmbeddingResult | ModelError] = []
        for lookup in lookups:
            result = next(computed) if lookup.missing is not None else None
            if not isinstance(result, ModelError):
                result = self._cache.complete(lookup, result)
            results.append(result)
        return results
