"""POST /score and /v1/score: vLLM's shape, a score for every pair of texts, in their order."""

from __future__ import annotations

import time
import uuid
from typing import Literal

from pydantic import Field
from starlette.requests import Request

from deployments.ingress.routes.rerank import LengthFields, check_documents
from deployments.ingress.routes.rerank_reply import RerankUsage
from deployments.ingress.schemas import ModelName, Reply, Texts
from deployments.ingress.server import Endpoint, Server
from deployments.ingress.wire_names import wire_names
from models.errors import InvalidInputError

Sides = str | Texts
FIRST = ("queries", "text_1", "data_1")
SECOND = ("documents", "items", "text_2", "data_2")


class ScoreBody(LengthFields):
    """One text against many, or two lists of the same length pair by pair."""

    model: ModelName | None = None
    queries: Sides | None = None
    documents: Sides | None = None
    items: Sides | None = None
    text_1: Sides | None = None
    text_2: Sides | None = None
    data_1: Sides | None = None
    data_2: Sides | None = None
    raw_scores: bool = False
    use_activation: bool = True
    truncate_prompt_tokens: Literal[-1] | None = None

    def pairs(self, server: Server) -> list[tuple[str, str]]:
        """Raises InvalidInputError unless both sides are there and fit each other."""
        first_name, second_name = self.side_name(FIRST), self.side_name(SECOND)
        first, second = self._side(first_name), self._side(second_name)
        check_documents(server, first_name, first)
        check_documents(server, second_name, second)
        if len(first) == 1:
            first *= len(second)
        if len(first) != len(second):
            message = f"'{first_name}' must be one text, or as many as '{second_name}'."
            raise InvalidInputError(message, first_name)
        return list(zip(first, second, strict=True))

    def side_name(self, names: tuple[str, ...]) -> str:
        """The one of the names that is given. Raises InvalidInputError for none and for several."""
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            listed = ", ".join(f"'{name}'" for name in names)
            raise InvalidInputError(f"Give one of {listed}.", given[1] if given else names[0])
        return given[0]

    def _side(self, name: str) -> tuple[str, ...]:
        value: Sides = getattr(self, name)
        return (value,) if isinstance(value, str) else tuple(value)


class PairScore(Reply):
    index: int
    object: Literal["score"] = "score"
    score: float


class Scores(Reply):
    """One score per pair, in the order of the request."""

    id: str
    object: Literal["list"] = "list"
    created: int = Field(description="Unix seconds")
    model: str
    data: list[PairScore]
    usage: RerankUsage


async def score(server: Server, request: Request, body: ScoreBody) -> Scores:
    """Score pairs of texts."""
    del request
    spec = server.model(body.model, "rerank")
    pairs = body.pairs(server)
    places: dict[str, list[int]] = {}
    for index, (query, _) in enumerate(pairs):
        places.setdefault(query, []).append(index)
    jobs = [
        body.request_for(query, tuple(pairs[i][1] for i in where))
        for query, where in places.items()
    ]
    with wire_names({"query": body.side_name(FIRST), "documents": body.side_name(SECOND)}):
        results = await server.clients.rerank.submit_all(spec.id, jobs)
    scores = [0.0] * len(pairs)
    raw = body.raw_scores or not body.use_activation
    for where, result in zip(places.values(), results, strict=True):
        for index, value in zip(where, result.logits if raw else result.scores, strict=True):
            scores[index] = value
    tokens = sum(result.usage.prompt_tokens for result in results)
    return Scores(
        id=f"score-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=spec.id,
        data=[PairScore(index=i, score=value) for i, value in enumerate(scores)],
        usage=RerankUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


ENDPOINTS = tuple(
    Endpoint("POST", path, score, "rerank", body=ScoreBody, response=Scores)
    for path in ("/score", "/v1/score")
)
