"""Token ids of other vocabularies, read in the replica: it may fetch files, and its memory goes
when the task is idle. The vocabulary is read when the first such request comes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from config.catalog import ASSET_CATALOG, load_catalog
from config.settings import AppConfig
from models.encoders.cl100k import Cl100k
from models.errors import InvalidInputError, ModelError, ModelLoadError
from models.types.texts import EmbeddingRequest
from weights.cache import open_cache
from weights.fetch import fetch

CL100K = "cl100k-base"


class ClientTokens:
    """Turns requests with token ids of the clients' vocabulary into requests with texts."""

    def __init__(self, config: AppConfig) -> None:
        self._config = config
        self._vocabulary: Cl100k | None = None
        self._lock = asyncio.Lock()

    async def readable(
        self, requests: list[EmbeddingRequest]
    ) -> list[EmbeddingRequest | ModelError]:
        """One entry per request, in order: what the engine takes, or what is wrong with it."""
        if all(request.vocabulary == "native" for request in requests):
            return list(requests)
        try:
            vocabulary = await self._loaded()
        except ModelLoadError as error:
            return [r if r.vocabulary == "native" else error for r in requests]
        return await asyncio.to_thread(self._read, vocabulary, requests)

    async def _loaded(self) -> Cl100k:
        async with self._lock:
            if self._vocabulary is None:
                self._vocabulary = await asyncio.to_thread(self._load)
        return self._vocabulary

    def _load(self) -> Cl100k:
        spec = load_catalog(ASSET_CATALOG).find(CL100K)
        if spec is None:
            raise ModelLoadError("The cl100k vocabulary is not in the catalogue of assets.")
        cache = open_cache(self._config.weights_dir, self._config.weights_url)
        path = fetch(spec, cache=cache, offline=self._config.offline)
        if path is None:
            raise ModelLoadError("The cl100k vocabulary is not on this machine.")
        return Cl100k(path)

    def _read(
        self, vocabulary: Cl100k, requests: list[EmbeddingRequest]
    ) -> list[EmbeddingRequest | ModelError]:
        return [
            request if request.vocabulary == "native" else self._as_texts(vocabulary, request)
            for request in requests
        ]

    def _as_texts(
        self, vocabulary: Cl100k, request: EmbeddingRequest
    ) -> EmbeddingRequest | ModelError:
        limits = self._config.limits
        texts, left = [], limits.max_total_chars
        try:
            for entry in request.inputs:
                most = min(left, limits.max_input_chars)
                text = entry if isinstance(entry, str) else vocabulary.text(entry, most)
                texts.append(text)
                left -= len(text)
        except InvalidInputError as error:
            return error
        return replace(request, inputs=tuple(texts), vocabulary="native")
