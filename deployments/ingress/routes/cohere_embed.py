"""POST /v1/embed and /v2/embed: Cohere's shapes."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.embedding_fields import (
    CUTS,
    PURPOSES,
    Dimensions,
    InputType,
    TokenLimit,
    check_inputs,
)
from deployments.ingress.embedding_formats import EmbeddingType, formatted
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.embeddings import numbers_response
from deployments.ingress.schemas import (
    HARD_LIST_LIMIT,
    LenientBody,
    ModelName,
    Omittable,
    Refused,
    Reply,
    Texts,
)
from deployments.ingress.server import Endpoint, Server
from deployments.ingress.wire_names import wire_names
from models.errors import InvalidInputError
from models.types.texts import EmbeddingRequest, EmbeddingResult

EmbeddingTypes = Annotated[list[EmbeddingType], Field(max_length=6, fail_fast=True)]


class EmbedBodyV1(KeepAliveFields, LenientBody):
    """Version 1. Without `embedding_types` the answer has plain lists of numbers."""

    model: ModelName | None = None
    texts: Texts | None = None
    images: Refused = None
    input_type: InputType | None = None
    embedding_types: EmbeddingTypes | None = None
    truncate: Literal["NONE", "START", "END"] = "END"

    @property
    def texts_name(self) -> str:
        """The field that has the texts."""
        return "texts"

    def texts_given(self) -> list[str]:
        if self.texts is None:
            raise InvalidInputError("'texts' is missing.", "texts")
        return self.texts

    def embedding_request(self, server: Server) -> EmbeddingRequest:
        texts = tuple(self.texts_given())
        check_inputs(server, self.texts_name, texts)
        truncate, side = CUTS[self.truncate]
        return EmbeddingRequest(
            texts,
            truncate=truncate,
            truncation_side=side,
            purpose=PURPOSES[self.input_type] if self.input_type is not None else None,
        )


class TextPart(LenientBody):
    type: Literal["text"]
    text: Annotated[str, Field(min_length=1)]


class EmbedInput(LenientBody):
    """One input in parts; they are one text, a line each. Parts that are images are refused."""

    content: Annotated[list[TextPart], Field(min_length=1, max_length=1024, fail_fast=True)]

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content)


class EmbedBodyV2(EmbedBodyV1):
    """Version 2: `input_type` is required, and numbers are by type."""

    model: ModelName
    input_type: InputType
    inputs: (
        Annotated[list[EmbedInput], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)]
        | None
    ) = None
    max_tokens: TokenLimit | None = None
    output_dimension: Dimensions | None = None

    @property
    def texts_name(self) -> str:
        return "texts" if self.inputs is None else "inputs"

    def texts_given(self) -> list[str]:
        if (self.texts is None) == (self.inputs is None):
            raise InvalidInputError("Give one of 'texts' and 'inputs'.", "texts")
        return self.texts or [entry.text for entry in self.inputs or ()]

    def embedding_request(self, server: Server) -> EmbeddingRequest:
        job = super().embedding_request(server)
        return replace(job, dimensions=self.output_dimension, max_tokens=self.max_tokens)


class EmbedApiVersion(Reply):
    version: str


class EmbedBilledUnits(Reply):
    input_tokens: int


class EmbedMeta(Reply):
    api_version: EmbedApiVersion
    billed_units: EmbedBilledUnits


class VectorsByType(Reply):
    """The types that were asked for; base64 is of little-endian float32."""

    floats: Annotated[Omittable[list[list[float]]], Field(alias="float")] = None
    int8: Omittable[list[list[int]]] = None
    uint8: Omittable[list[list[int]]] = None
    binary: Omittable[list[list[int]]] = None
    ubinary: Omittable[list[list[int]]] = None
    base64: Omittable[list[str]] = None


class CohereEmbeddings(Reply):
    id: str
    response_type: Literal["embeddings_floats", "embeddings_by_type"]
    embeddings: list[list[float]] | VectorsByType
    texts: list[str]
    meta: EmbedMeta


async def embed_v1(server: Server, request: Request, body: EmbedBodyV1) -> Response:
    """Embed texts, in the shape of Cohere's first version."""
    del request
    return await _embed(server, body, "1", body.embedding_types)


async def embed_v2(server: Server, request: Request, body: EmbedBodyV2) -> Response:
    """Embed texts, in the shape of Cohere's second version."""
    del request
    return await _embed(server, body, "2", body.embedding_types or ["float"])


async def _embed(
    server: Server, body: EmbedBodyV1, version: str, types: list[EmbeddingType] | None
) -> Response:
    spec = server.model(body.model, "embedding")
    job = body.embedding_request(server)
    with wire_names({"input": body.texts_name, "dimensions": "output_dimension"}):
        result = await server.clients.embedding.submit(spec.id, job)
    return numbers_response(
        {
            "id": str(uuid.uuid4()),
            "response_type": "embeddings_by_type" if types else "embeddings_floats",
            "embeddings": _embeddings(result, types),
            "texts": job.inputs,
            "meta": {
                "api_version": {"version": version},
                "billed_units": {"input_tokens": result.usage.prompt_tokens},
            },
        }
    )


def _embeddings(result: EmbeddingResult, types: list[EmbeddingType] | None) -> Any:
    if not types:
        return formatted(result.vectors, "float")
    return {kind: formatted(result.vectors, kind) for kind in types}


ENDPOINTS = (
    Endpoint(
        "POST", "/v1/embed", embed_v1, "embeddings", body=EmbedBodyV1, response=CohereEmbeddings
    ),
    Endpoint(
        "POST", "/v2/embed", embed_v2, "embeddings", body=EmbedBodyV2, response=CohereEmbeddings
    ),
)
