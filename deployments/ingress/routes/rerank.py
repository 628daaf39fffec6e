"""POST /rerank, /v1/rerank and /v2/rerank: Cohere's, Jina's, infinity's and TEI's requests.

`texts` makes it TEI's. On /rerank, infinity's own path, `raw_scores` (which its client always
sends) makes it infinity's. All others get the shape that Cohere and Jina have in common.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request

from deployments.ingress.embedding_fields import CUTS, TokenLimit
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.rerank_reply import Ranking, RerankReply, ranking
from deployments.ingress.schemas import HARD_LIST_LIMIT, LenientBody, ModelName, Refused
from deployments.ingress.server import Endpoint, Server, check_count, check_texts
from deployments.ingress.wire_names import wire_names
from models.errors import InvalidInputError
from models.types.texts import RerankRequest

MAX_WINDOWS = 64
DEFAULT_OVERLAP = 32
INFINITYS_DEFAULT = "default/not-specified"
"""What infinity's client sends for no model."""
Documents = Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)
Count = Annotated[int, Field(ge=1)]


class DocumentBody(LenientBody):
    text: str


class LengthFields(KeepAliveFields, LenientBody):
    """What becomes of documents that are too long. They are cut, `max_tokens_per_doc` sooner.

    `truncation` "windowed", or Cohere's `max_chunks_per_doc` above 1: they are read in overlapping
    windows, of which the best counts. `truncate` false refuses them.
    """

    max_tokens_per_doc: TokenLimit | None = None
    max_chunks_per_doc: Count | None = None
    truncate: bool = True
    truncation: bool | Literal["windowed"] | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None
    overlap: Annotated[int, Field(ge=0, le=65_536)] = DEFAULT_OVERLAP

    def request_for(self, query: str, documents: tuple[str, ...]) -> RerankRequest:
        side = self.truncation_direction
        return RerankRequest(
            query,
            documents,
            truncate=self.truncate and self.truncation is not False,
            max_tokens_per_document=self.max_tokens_per_doc,
            windows=self._windows,
            overlap=self.overlap,
            truncation_side=CUTS[side][1] if side is not None else None,
        )

    @property
    def _windows(self) -> int:
        if self.max_chunks_per_doc is not None:
            return min(self.max_chunks_per_doc, MAX_WINDOWS)
        return MAX_WINDOWS if self.truncation == "windowed" else 1


class RerankBody(LengthFields):
    """One query, and `documents` or (TEI) `texts`. `top_n`, `top_k`: all when absent.

    Without `model` the first reranker of the catalogue answers.
    """

    model: ModelName | None = None
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[str | DocumentBody], Documents] | None = None
    texts: Annotated[list[str], Documents] | None = None
    top_n: Count | None = None
    top_k: Count | None = None
    return_documents: bool = False
    return_text: bool = False
    rank_fields: Annotated[list[str], Field(max_length=64, fail_fast=True)] | None = None
    raw_scores: bool = False
    use_activation: bool = True
    truncate_prompt_tokens: Literal[-1] | None = None
    relevant_spans: Refused = None

    @property
    def with_texts(self) -> bool:
        return self.return_documents or self.return_text

    @property
    def documents_name(self) -> str:
        """The field that has the documents."""
        return "documents" if self.texts is None else "texts"

    def texts_given(self) -> tuple[str, ...]:
        """Raises InvalidInputError unless there is one list of documents."""
        if (self.documents is None) == (self.texts is None):
            raise InvalidInputError("Give one of 'documents' and 'texts'.", "documents")
        documents = self.documents or self.texts or []
        return tuple(d if isinstance(d, str) else d.text for d in documents)

    def rerank_request(self, server: Server) -> RerankRequest:
        """Raises InvalidInputError for what only the settings or the fields together forbid."""
        if self.rank_fields not in (None, ["text"]):
            raise InvalidInputError("Only the field 'text' of a document is ranked.", "rank_fields")
        texts = self.texts_given()
        check_documents(server, self.documents_name, texts)
        check_texts(server, "query", [self.query])
        return self.request_for(self.query, texts)


def check_documents(server: Server, param: str, documents: tuple[str, ...]) -> None:
    """Raises InvalidInputError for too many, too long or empty documents."""
    check_count(param, len(documents), server.config.limits.max_documents)
    check_texts(server, param, documents)
    if not all(documents):
        raise InvalidInputError("A document must not be empty.", param)


async def rerank(server: Server, request: Request, body: RerankBody) -> RerankReply:
    """Order documents by their relevance to a query."""
    spec = server.model(None if body.model == INFINITYS_DEFAULT else body.model, "rerank")
    job = body.rerank_request(server)
    with wire_names({"documents": body.documents_name}):
        result = await server.clients.rerank.submit(spec.id, job)
    ranked = ranking(
        result,
        job.documents,
        model=spec.id,
        raw=body.raw_scores or not body.use_activation,
        top=body.top_n or body.top_k,
    )
    return _shaped(ranked, request.url.path, body)


def _shaped(ranked: Ranking, path: str, body: RerankBody) -> RerankReply:
    if body.texts is not None:
        return RerankReply(ranked.tei(with_texts=body.with_texts))
    if path == "/rerank" and "raw_scores" in body.model_fields_set:
        return RerankReply(ranked.infinity(with_texts=body.with_texts))
    version = "2" if path.startswith("/v2") else "1"
    return RerankReply(
        ranked.cohere(version, with_texts=body.with_texts, twice=body.top_k is not None)
    )


ENDPOINTS = tuple(
    Endpoint("POST", path, rerank, "rerank", body=RerankBody, response=RerankReply)
    for path in ("/v1/rerank", "/v2/rerank", "/rerank")
)
