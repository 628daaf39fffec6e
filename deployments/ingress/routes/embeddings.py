"""POST /v1/embeddings."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.schemas import Body, ModelName, Reply, Texts, TokenIds, TokenLists
from deployments.ingress.server import Endpoint, Server, check_count, check_texts
from models.errors import InvalidInputError
from models.types import EmbeddingRequest, EmbeddingResult


class EmbeddingsBody(Body):
    """OpenAI's request, and `truncate` to cut over-long inputs instead of refusing them.

    Token ids are those of the model's own vocabulary.
    """

    model: ModelName
    input: str | Texts | TokenIds | TokenLists
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    encoding_format: Literal["float", "base64"] | None = "float"
    truncate: bool = False


class EmbeddingObject(Reply):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Reply):
    prompt_tokens: int
    total_tokens: int


class Embeddings(Reply):
    """`embedding` is a list of numbers, or base64 of little-endian float32."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage


async def create_embeddings(server: Server, request: Request, body: EmbeddingsBody) -> Response:
    """Embed one text or many."""
    del request
    spec = server.model(body.model, "embedding")
    inputs = _inputs(body.input)
    check_count("input", len(inputs), server.config.limits.max_inputs)
    check_texts(server, "input", inputs)
    if not all(inputs):
        raise InvalidInputError("An input must not be empty.", "input")
    job = EmbeddingRequest(inputs, body.dimensions, body.truncate)
    result = await server.clients.embedding.submit(spec.id, job)
    return _render(result, spec.id, as_base64=body.encoding_format == "base64")


def _inputs(
    wire: str | list[str] | list[int] | list[list[int]],
) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(wire, str):
        return (wire,)
    if isinstance(wire[0], int):
        return (tuple(wire),)
    return tuple(text if isinstance(text, str) else tuple(text) for text in wire)


def _render(result: EmbeddingResult, model_id: str, *, as_base64: bool) -> Response:
    """Written without pydantic: a response may hold millions of numbers."""
    rows = result.vectors
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()
            if as_base64
            else row,
        }
        for index, row in enumerate(rows)
    ]
    tokens = result.usage.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    reply = {"object": "list", "data": data, "model": model_id, "usage": usage}
    content = orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/embeddings",
        create_embeddings,
        "embeddings",
        body=EmbeddingsBody,
        response=Embeddings,
    ),
)
