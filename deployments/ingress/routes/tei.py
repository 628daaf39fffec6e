"""/embed, /embed_all, /embed_sparse, /similarity, /decode and /info: the shapes of TEI.

Its requests name no model: the first embedding model of the catalogue answers. Its token ids are
the model's own. /rerank with `texts` is in rerank.py, /tokenize with `inputs` in tokenization.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, RootModel
from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.embedding_fields import (
    CUTS,
    Dimensions,
    PromptName,
    check_inputs,
    inputs_of,
)
from deployments.ingress.embedding_formats import sparse_values
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.docs import VERSION
from deployments.ingress.routes.embeddings import SparseValue, numbers_response
from deployments.ingress.schemas import (
    HARD_LIST_LIMIT,
    LenientBody,
    ModelName,
    Reply,
    Texts,
    TokenIds,
    TokenLists,
)
from deployments.ingress.server import Endpoint, Server, check_count, check_texts
from deployments.ingress.wire_names import wire_names
from models.types.texts import EmbeddingKind, EmbeddingRequest, EmbeddingResult

Mixed = Annotated[
    list[str | TokenIds], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)
]


class TextOptions(LenientBody):
    """How inputs are read; over-long ones are cut, as TEI does, unless `truncate` is false."""

    truncate: bool = True
    truncation_direction: Literal["Left", "Right", "left", "right"] = "Right"
    prompt_name: PromptName | None = None

    def request_for(
        self,
        inputs: tuple[str | tuple[int, ...], ...],
        *,
        normalize: bool | None = None,
        dimensions: int | None = None,
        kinds: tuple[EmbeddingKind, ...] = ("dense",),
    ) -> EmbeddingRequest:
        return EmbeddingRequest(
            inputs,
            dimensions=dimensions,
            truncate=self.truncate,
            truncation_side=CUTS[self.truncation_direction][1],
            prompt_name=self.prompt_name,
            normalize=normalize,
            kinds=kinds,
        )


class EmbedAllBody(KeepAliveFields, TextOptions):
    """`model` is ours: another than the first embedding model of the catalogue."""

    inputs: str | Texts | TokenIds | TokenLists | Mixed
    model: ModelName | None = None


class EmbedBody(EmbedAllBody):
    """Vectors have unit length unless `normalize` is false, whatever the model's authors do."""

    normalize: bool = True
    dimensions: Dimensions | None = None


class SimilarityInputs(LenientBody):
    source_sentence: Annotated[str, Field(min_length=1)]
    sentences: Texts


class SimilarityBody(KeepAliveFields, LenientBody):
    inputs: SimilarityInputs
    parameters: TextOptions = TextOptions()
    model: ModelName | None = None


class DecodeBody(KeepAliveFields, LenientBody):
    ids: TokenIds | TokenLists
    skip_special_tokens: bool = True
    model: ModelName | None = None


class Vectors(RootModel[list[list[float]]]):
    """One vector per input, also for a single input."""


class TokenVectors(RootModel[list[list[list[float]]]]):
    """The vectors of the tokens of every input, as the model's last layer leaves them."""


class SparseVectors(RootModel[list[list[SparseValue]]]):
    """What is not zero of every input's vector over the vocabulary."""


class Similarities(RootModel[list[float]]):
    """The cosine of every sentence with the source."""


class DecodedTexts(RootModel[list[str]]):
    """One text per list of ids."""


class EmbeddingModelType(Reply):
    pooling: str


class ModelType(Reply):
    embedding: EmbeddingModelType


class TeiInfo(Reply):
    """`max_batch_requests`, `sha` and `docker_label` are always null."""

    model_id: str
    served_model_name: str
    model_sha: str | None
    model_dtype: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None = None
    max_client_batch_size: int
    auto_truncate: bool = True
    tokenization_workers: int = 2
    version: str
    sha: str | None = None
    docker_label: str | None = None


async def embed(server: Server, request: Request, body: EmbedBody) -> Response:
    """Embed one text or many, in TEI's shape."""
    del request
    job = body.request_for(
        _inputs(server, body), normalize=body.normalize, dimensions=body.dimensions
    )
    return numbers_response((await _submit(server, body.model, job)).vectors)


async def embed_all(server: Server, request: Request, body: EmbedAllBody) -> Response:
    """The vectors of all tokens, in TEI's shape."""
    del request
    job = body.request_for(_inputs(server, body), kinds=("tokens",))
    return numbers_response((await _submit(server, body.model, job)).token_vectors)


async def embed_sparse(server: Server, request: Request, body: EmbedAllBody) -> Response:
    """Sparse vectors, in TEI's shape."""
    del request
    job = body.request_for(_inputs(server, body), kinds=("sparse",))
    result = await _submit(server, body.model, job)
    return numbers_response([sparse_values(vector) for vector in result.sparse])


async def similarity(server: Server, request: Request, body: SimilarityBody) -> Similarities:
    """How close sentences are to one, in TEI's shape."""
    del request
    texts = (body.inputs.source_sentence, *body.inputs.sentences)
    check_inputs(server, "inputs", texts)
    result = await _submit(server, body.model, body.parameters.request_for(texts, normalize=True))
    source, sentences = result.vectors[0], result.vectors[1:]
    cosines = np.clip(sentences @ source, -1, 1)
    return Similarities([float(cosine) for cosine in cosines])


async def decode(server: Server, request: Request, body: DecodeBody) -> DecodedTexts:
    """The texts of token ids, in TEI's shape."""
    del request
    spec = server.model(body.model, "embedding")
    sequences = [tuple(i) for i in inputs_of(body.ids) if not isinstance(i, str)]
    check_count("ids", len(sequences), server.config.limits.max_inputs)
    check_texts(server, "ids", sequences)
    texts = await server.clients.embedding.detokenize(
        spec.id, sequences, skip_specials=body.skip_special_tokens
    )
    return DecodedTexts(texts)


async def info(server: Server, request: Request, body: None) -> TeiInfo:
    """What the first embedding model is and takes, in TEI's shape. Loads it."""
    del request, body
    spec = server.model(None, "embedding")
    described = await server.clients.embedding.describe(spec.id)
    return TeiInfo(
        model_id=spec.id,
        served_model_name=spec.id,
        model_sha=getattr(spec.source, "sha256", None),
        model_dtype=described.dtype,
        model_type=ModelType(embedding=EmbeddingModelType(pooling=described.pooling)),
        max_concurrent_requests=server.config.embedding.max_queued_requests,
        max_input_length=described.max_tokens,
        max_batch_tokens=described.max_batch_tokens,
        max_client_batch_size=server.config.limits.max_inputs,
        version=VERSION,
    )


def _inputs(server: Server, body: EmbedAllBody) -> tuple[str | tuple[int, ...], ...]:
    inputs = inputs_of(body.inputs)
    check_inputs(server, "inputs", inputs)
    return inputs


async def _submit(server: Server, model: str | None, job: EmbeddingRequest) -> EmbeddingResult:
    spec = server.model(model, "embedding")
    with wire_names({"input": "inputs"}):
        return await server.clients.embedding.submit(spec.id, job)


ENDPOINTS = (
    Endpoint("POST", "/embed", embed, "embeddings", body=EmbedBody, response=Vectors),
    Endpoint(
        "POST", "/embed_all", embed_all, "embeddings", body=EmbedAllBody, response=TokenVectors
    ),
    Endpoint(
        "POST",
        "/embed_sparse",
        embed_sparse,
        "embeddings",
        body=EmbedAllBody,
        response=SparseVectors,
    ),
    Endpoint(
        "POST", "/similarity", similarity, "embeddings", body=SimilarityBody, response=Similarities
    ),
    Endpoint("POST", "/decode", decode, "embeddings", body=DecodeBody, response=DecodedTexts),
    Endpoint("GET", "/info", info, "embeddings", response=TeiInfo),
)
