"""POST /v1/rerank and /v2/rerank: the shapes of Cohere and Jina."""

from __future__ import annotations

import uuid
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.schemas import HARD_LIST_LIMIT, Body, ModelName, Reply
from deployments.ingress.server import Endpoint, Server, check_count, check_texts
from models.errors import InvalidInputError
from models.types import RerankRequest, RerankResult


class DocumentBody(Body):
    text: str


class RerankBody(Body):
    """Cohere's and Jina's request. `top_n` (also `top_k`): how many results, all when absent.

    Over-long documents are cut, `max_tokens_per_doc` sooner; `truncate: false` refuses them.
    """

    model: ModelName
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[
        list[str | DocumentBody],
        Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True),
    ]
    top_n: Annotated[int, Field(ge=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    rank_fields: Annotated[list[str], Field(max_length=64, fail_fast=True)] | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    raw_scores: bool = False
    truncate: bool = True


class RerankedDocument(Reply):
    text: str


class RerankedResult(Reply):
    index: int
    relevance_score: float
    document: RerankedDocument | None = None


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
    """Results sorted by descending score; ties keep the order of the documents."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[RerankedResult]
    usage: RerankUsage
    meta: RerankMeta


async def rerank(server: Server, request: Request, body: RerankBody) -> Response:
    """Order documents by their relevance to a query."""
    spec = server.model(body.model, "rerank")
    if body.rank_fields not in (None, ["text"]):
        raise InvalidInputError("Only the field 'text' of a document is ranked.", "rank_fields")
    documents = tuple(d if isinstance(d, str) else d.text for d in body.documents)
    check_count("documents", len(documents), server.config.limits.max_documents)
    check_texts(server, "documents", documents)
    check_texts(server, "query", [body.query])
    if not all(documents):
        raise InvalidInputError("A document must not be empty.", "documents")
    job = RerankRequest(body.query, documents, body.truncate, body.max_tokens_per_doc)
    result = await server.clients.rerank.submit(spec.id, job)
    version = "2" if request.url.path.startswith("/v2") else "1"
    tokens = result.usage.prompt_tokens
    reply = Reranked(
        id=uuid.uuid4().hex,
        model=spec.id,
        results=_results(result, documents, body),
        usage=RerankUsage(prompt_tokens=tokens, total_tokens=tokens),
        meta=RerankMeta(
            api_version=ApiVersion(version=version), billed_units=BilledUnits(search_units=1)
        ),
    )
    # Without `document` where it was not asked for, as in the answers of Cohere and Jina.
    return Response(reply.model_dump_json(exclude_none=True), media_type="application/json")


def _results(
    result: RerankResult, documents: tuple[str, ...], body: RerankBody
) -> list[RerankedResult]:
    scores = result.logits if body.raw_scores else result.scores
    # By logit: the activation may round neighbours together.
    order = sorted(range(len(documents)), key=lambda i: (-result.logits[i], i))
    results = []
    for index in order[: body.top_n or body.top_k]:
        entry = RerankedResult(index=index, relevance_score=scores[index])
        if body.return_documents:
            entry.document = RerankedDocument(text=documents[index])
        results.append(entry)
    return results


ENDPOINTS = tuple(
    Endpoint("POST", path, rerank, "rerank", body=RerankBody, response=Reranked)
    for path in ("/v1/rerank", "/v2/rerank", "/rerank")
)
