"""POST /v1/embeddings: OpenAI's shape, with what Jina's and vLLM's clients add to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from config.catalog import ModelSpec
from deployments.ingress.embedding_fields import (
    CUTS,
    PURPOSES,
    Dimensions,
    InputType,
    JinaTask,
    PromptName,
    TextItems,
    TokenLimit,
    Truncate,
    check_inputs,
    inputs_of,
)
from deployments.ingress.embedding_formats import EmbeddingType, formatted, sparse_values
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.schemas import (
    LenientBody,
    ModelName,
    Omittable,
    Refused,
    Reply,
    Texts,
    TokenIds,
    TokenLists,
)
from deployments.ingress.server import Endpoint, Server
from deployments.ingress.wire_names import wire_names
from models.errors import InvalidInputError
from models.types.texts import EmbeddingKind, EmbeddingRequest, EmbeddingResult, TruncationSide

Output = Literal["dense", "multi", "sparse"]
KINDS: dict[Output, EmbeddingKind] = {"dense": "dense", "multi": "tokens", "sparse": "sparse"}


class JinaFields(LenientBody):
    """`embedding_type` wins over `encoding_format`, which OpenAI's client always sends."""

    task: JinaTask | None = None
    late_chunking: bool = False
    embedding_type: EmbeddingType | None = None


class VllmFields(LenientBody):
    """-1 in `truncate_prompt_tokens`: cut at the model's own limit."""

    truncate_prompt_tokens: Literal[-1] | TokenLimit | None = None
    truncation_side: TruncationSide | None = None
    add_special_tokens: bool = True
    normalize: bool | None = None
    embed_dtype: Literal["float32"] | None = None
    endianness: Literal["native", "little"] | None = None
    messages: Refused = None


class EmbeddingsBody(KeepAliveFields, JinaFields, VllmFields):
    """Token ids are those of OpenAI's vocabulary cl100k, unless the catalogue says otherwise."""

    model: ModelName
    input: str | Texts | TokenIds | TokenLists | TextItems
    dimensions: Dimensions | None = None
    encoding_format: Literal["float", "base64"] = "float"
    truncate: Truncate = False
    input_type: InputType | None = None
    prompt_name: PromptName | None = None
    output: Annotated[list[Output], Field(min_length=1, max_length=3)] = ["dense"]  # noqa: RUF012

    def embedding_request(self, server: Server, spec: ModelSpec) -> EmbeddingRequest:
        """Raises InvalidInputError for what only the settings or the fields together forbid."""
        inputs = inputs_of(self.input)
        check_inputs(server, "input", inputs)
        self._check_purposes()
        truncate, side = CUTS[self.truncate]
        purpose = self.input_type or self.task
        limit = self.truncate_prompt_tokens
        return EmbeddingRequest(
            inputs,
            dimensions=self.dimensions,
            truncate=truncate or limit is not None,
            prompt_name=self.prompt_name,
            purpose=PURPOSES[purpose] if purpose is not None else None,
            max_tokens=None if limit == -1 else limit,
            truncation_side=self.truncation_side or side,
            add_special_tokens=self.add_special_tokens,
            normalize=self.normalize,
            late_chunking=self.late_chunking,
            kinds=tuple(KINDS[output] for output in dict.fromkeys(self.output)),
            vocabulary="native" if isinstance(inputs[0], str) else spec.input_vocabulary,
        )

    def _check_purposes(self) -> None:
        fields = ("input_type", "task", "prompt_name")
        given = [name for name in fields if getattr(self, name) is not None]
        if len(given) > 1:
            message = f"'{given[0]}' and '{given[1]}' both choose the prompt: give one."
            raise InvalidInputError(message, given[1])


class SparseValue(Reply):
    index: int
    value: float


class EmbeddingObject(Reply):
    """`embedding` is empty where `output` has no "dense"."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str
    multi: Omittable[list[list[float]]] = None
    sparse: Omittable[list[SparseValue]] = None


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
    job = body.embedding_request(server, spec)
    with wire_names({"max_tokens": "truncate_prompt_tokens"}):
        result = await server.clients.embedding.submit(spec.id, job)
    data = _data(result, job, body.embedding_type or body.encoding_format)
    return _render(result, spec.id, data)


def _data(
    result: EmbeddingResult, job: EmbeddingRequest, kind: EmbeddingType
) -> list[dict[str, Any]]:
    dense = formatted(result.vectors, kind) if "dense" in job.kinds else [[]] * len(job.inputs)
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(dense)
    ]
    for entry, states in zip(data, result.token_vectors, strict=False):
        entry["multi"] = states
    for entry, vector in zip(data, result.sparse, strict=False):
        entry["sparse"] = sparse_values(vector)
    return data


def _render(result: EmbeddingResult, model_id: str, data: list[dict[str, Any]]) -> Response:
    """Written without pydantic: a response may hold millions of numbers."""
    tokens = result.usage.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return numbers_response({"object": "list", "data": data, "model": model_id, "usage": usage})


def numbers_response(reply: object) -> Response:
    """JSON of anything that holds arrays of numbers."""
    content = orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


ENDPOINTS = tuple(
    Endpoint(
        "POST", path, create_embeddings, "embeddings", body=EmbeddingsBody, response=Embeddings
    )
    for path in ("/v1/embeddings", "/embeddings")
)
