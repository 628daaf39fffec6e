"""One ranking in the shapes of Cohere and Jina, of infinity, and of TEI."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import RootModel

from deployments.ingress.schemas import Omittable, Reply
from models.types.texts import RerankResult

DOCUMENTS_PER_SEARCH = 100
"""Cohere counts a query with up to so many documents as one search."""


class RerankedDocument(Reply):
    text: str


class RerankedResult(Reply):
    index: int
    relevance_score: float
    document: Omittable[RerankedDocument] = None


class InfinityResult(Reply):
    index: int
    relevance_score: float
    document: Omittable[str] = None


class RerankUsage(Reply):
    prompt_tokens: int
    total_tokens: int


class ApiVersion(Reply):
    version: str


class BilledUnits(Reply):
    search_units: float


class RerankMeta(Reply):
    api_version: ApiVersion
    billed_units: BilledUnits


class Reranked(Reply):
    """Results sorted by descending score; ties keep the order of the documents.

    `data` are the same results again, for clients that ask with `top_k`.
    """

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[RerankedResult]
    data: Omittable[list[RerankedResult]] = None
    usage: RerankUsage
    meta: RerankMeta


class InfinityReranked(Reply):
    """infinity's: a document is a text."""

    object: Literal["rerank"] = "rerank"
    id: str
    model: str
    created: int
    results: list[InfinityResult]
    usage: RerankUsage


class TeiRank(Reply):
    index: int
    score: float
    text: Omittable[str] = None


class RerankReply(RootModel[Reranked | InfinityReranked | list[TeiRank]]):
    """Which one it is, the request says."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The documents that the client wants, best first: (index, score, text)."""

    model: str
    entries: Sequence[tuple[int, float, str]]
    tokens: int
    documents: int
    """How many were scored."""

    def cohere(self, version: str, *, with_texts: bool, twice: bool) -> Reranked:
        results = [
            RerankedResult(
                index=index,
                relevance_score=score,
                document=RerankedDocument(text=text) if with_texts else None,
            )
            for index, score, text in self.entries
        ]
        units = math.ceil(self.documents / DOCUMENTS_PER_SEARCH)
        return Reranked(
            id=uuid.uuid4().hex,
            model=self.model,
            results=results,
            data=results if twice else None,
            usage=self._usage,
            meta=RerankMeta(
                api_version=ApiVersion(version=version),
                billed_units=BilledUnits(search_units=units),
            ),
        )

    def infinity(self, *, with_texts: bool) -> InfinityReranked:
        results = [
            InfinityResult(
                index=index, relevance_score=score, document=text if with_texts else None
            )
            for index, score, text in self.entries
        ]
        return InfinityReranked(
            id=uuid.uuid4().hex,
            model=self.model,
            created=int(time.time()),
            results=results,
            usage=self._usage,
        )

    def tei(self, *, with_texts: bool) -> list[TeiRank]:
        return [
            TeiRank(index=index, score=score, text=text if with_texts else None)
            for index, score, text in self.entries
        ]

    @property
    def _usage(self) -> RerankUsage:
        return RerankUsage(prompt_tokens=self.tokens, total_tokens=self.tokens)


def ranking(
    result: RerankResult, texts: Sequence[str], *, model: str, raw: bool, top: int | None
) -> Ranking:
    """The `top` best, all when None. Sorted by logit: the activation may round neighbours
    together."""
    scores = result.logits if raw else result.scores
    order = sorted(range(len(texts)), key=lambda i: (-result.logits[i], i))[:top]
    entries = [(i, scores[i], texts[i]) for i in order]
    return Ranking(model, entries, result.usage.prompt_tokens, len(texts))
