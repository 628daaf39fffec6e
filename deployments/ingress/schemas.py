"""Wire types that several routes share. A route's own schemas live beside the route."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticUseDefault

from deployments.ingress.keep_alive_fields import KeepAliveFields
from models.errors import InvalidInputError
from models.types.generation import SamplingParams

ModelName = Annotated[str, Field(min_length=1, max_length=256)]
MAX_BIASES = 1024
HARD_LIST_LIMIT = 250_000
"""No list of a request may be longer, whatever the settings say.

Every list of a request must also have `fail_fast`: pydantic collects all errors otherwise, of which
a small body can have millions.
"""
HARD_COLUMN_LIMIT = 65_536
MAX_SCHEMA_CHARS = 131_072
"""Of one JSON Schema in a request, as text; OpenAI's limit is 120,000."""
_SOME = Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], _SOME]
Texts = Annotated[list[str], _SOME]
TokenLists = Annotated[list[TokenIds], _SOME]


FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]

T = TypeVar("T")
Omittable = Annotated[T | None, Field(exclude_if=lambda value: value is None)]
"""A field of a reply that is left out where it would be null."""


def at_most(entries: int) -> BeforeValidator:
    """For dicts: refused by their size before any of their entries can be at fault."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > entries:
            raise ValueError(f"Object should have at most {entries} entries")
        return value

    return BeforeValidator(check)


def _refuse(value: Any) -> None:
    raise ValueError("This server does not do this")


Refused = Annotated[None, BeforeValidator(_refuse)]
"""A field that promises what this server does not do: refused by its name where it is not null."""


class Body(BaseModel):
    """A request body: strict types, no NaN or Infinity; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class LenientBody(Body):
    """A body in which null means the default, whatever the field."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None}


def null_is_the_default(value: Any) -> Any:
    """Validates single fields as LenientBody does all: of bodies that are read in one go, because
    they may hold a hundred thousand rows."""
    if value is None:
        raise PydanticUseDefault
    return value


class Reply(BaseModel):
    """A response body; `protected_namespaces` is off because the wire says `model_…` freely."""

    model_config = ConfigDict(protected_namespaces=())


class ErrorDetail(Reply):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Reply):
    """Every answer that is not 2xx."""

    error: ErrorDetail


class PromptTokensDetails(Reply):
    cached_tokens: int = 0


class CompletionTokensDetails(Reply):
    reasoning_tokens: int = 0


class CompletionUsage(Reply):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class StreamOptions(LenientBody):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False
    """Random padding against eavesdroppers who measure chunks: not offered."""


class SamplingBody(KeepAliveFields, LenientBody):
    """The sampling fields that chat and completions have in common; null means the default."""

    model: ModelName
    n: Annotated[int, Field(ge=1, le=128)] = 1
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[str, Field(min_length=1, max_length=256)]
        | Annotated[
            list[Annotated[str, Field(min_length=1, max_length=256)]],
            Field(max_length=64, fail_fast=True),
        ]
        | None
    ) = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], at_most(MAX_BIASES)] | None
    ) = None
    ignore_eos: bool = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _tokens_are_consistent(self) -> SamplingBody:
        limit = self.token_limit
        if limit is not None and self.min_tokens > limit:
            raise InvalidInputError("'min_tokens' must not exceed 'max_tokens'.", "min_tokens")
        return self

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, *, max_stops: int, logprobs: int | None) -> SamplingParams:
        """Raises InvalidInputError for what only the settings or the pieces together forbid."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > max_stops:
            raise InvalidInputError(f"'stop' takes at most {max_stops} sequences.", "stop")
        return SamplingParams(
            max_tokens=self.token_limit,
            min_tokens=self.min_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k, 0),
            min_p=self.min_p,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=self.repetition_penalty,
            seed=None if self.seed is None else self.seed % 2**32,
            stop=tuple(stop),
            logprobs=logprobs,
            logit_bias=_biases(self.logit_bias or {}),
            ignore_eos=self.ignore_eos,
        )


def _biases(wire: dict[str, float]) -> tuple[tuple[int, float], ...]:
    if not all(token.isascii() and token.isdecimal() and len(token) < 11 for token in wire):
        raise InvalidInputError("'logit_bias' maps token ids to numbers.", "logit_bias")
    return tuple((int(token), bias) for token, bias in wire.items())


def schema_text(schema: dict[str, Any], param: str) -> str:
    """A JSON Schema of a request as text. Raises InvalidInputError where it is too large."""
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        message = "A schema is nested too deeply, or has numbers that are not finite."
        raise InvalidInputError(message, param) from None
    if len(text) > MAX_SCHEMA_CHARS:
        message = f"A schema has {len(text)} characters; the limit is {MAX_SCHEMA_CHARS}."
        raise InvalidInputError(message, param)
    return text


FinishReason = Literal["stop", "length", "tool_calls", "function_call", "content_filter"]
