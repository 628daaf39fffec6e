"""The body of POST /v1/chat/completions, and the generation request that it means."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from deployments.ingress.chat_messages import Messages
from deployments.ingress.chat_prompt import ChatPromptFields
from deployments.ingress.output_format import OutputFormatFields
from deployments.ingress.schemas import LenientBody, SamplingBody, at_most
from deployments.ingress.server import Server, check_choices
from models.errors import InvalidInputError
from models.types.generation import GenerationRequest

Truncation = Literal["disabled", "auto"]
Text = Annotated[str, Field(max_length=4096)]


class Prediction(LenientBody):
    type: Literal["content"]
    content: str | list[Any]


class PromptCacheOptions(LenientBody):
    mode: Text | None = None
    ttl: Text | None = None


class HintFields(LenientBody):
    """Fields that change no answer of this server; docs/api.md says why of each."""

    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            at_most(16),
        ]
        | None
    ) = None
    prediction: Prediction | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    prompt_cache_retention: Text | None = None
    safety_identifier: Text | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    store: bool = False


class RefusedFields(LenientBody):
    """Fields that promise what this server does not do."""

    audio: Any | None = None
    modalities: Annotated[list[str], Field(max_length=16, fail_fast=True)] | None = None
    moderation: Any | None = None
    web_search_options: Any | None = None

    def refuse(self) -> None:
        """Raises InvalidInputError for the first of them that is set."""
        refused = {
            "audio": self.audio is not None,
            "modalities": self.modalities not in (None, ["text"]),
            "moderation": self.moderation is not None,
            "web_search_options": self.web_search_options is not None,
        }
        for param, value in refused.items():
            if value:
                raise InvalidInputError(f"'{param}' is not supported by this server.", param)


class TruncationFields(LenientBody):
    """What becomes of a chat that is too long: ours, and the two names it has elsewhere."""

    truncation: Truncation | None = None
    auto_truncate: bool | None = None
    truncation_strategy: Literal["auto", "sliding_window", "keep_system"] | None = None

    def resolved(self) -> Truncation:
        """Raises InvalidInputError where the fields contradict each other."""
        wanted: set[Truncation] = set()
        if self.truncation is not None:
            wanted.add(self.truncation)
        if self.auto_truncate is not None:
            wanted.add("auto" if self.auto_truncate else "disabled")
        if self.truncation_strategy is not None and not wanted:
            wanted.add("auto")
        if len(wanted) > 1:
            message = "'truncation' and 'auto_truncate' contradict each other."
            raise InvalidInputError(message, "auto_truncate")
        return wanted.pop() if wanted else "disabled"


class ChatBody(
    SamplingBody, ChatPromptFields, OutputFormatFields, TruncationFields, HintFields, RefusedFields
):
    """OpenAI's request; docs/api.md lists how each field is treated."""

    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    thinking_budget: Annotated[int, Field(ge=0, le=1_000_000)] | None = None

    @property
    def token_limit(self) -> int | None:
        limit = self.max_completion_tokens
        return self.max_tokens if limit is None else limit

    def generation_request(self, server: Server) -> GenerationRequest:
        """Raises InvalidInputError for what cannot be honoured; nothing is dropped silently."""
        limits = server.config.limits
        self.refuse()
        check_choices(self.n, limits.max_choices)
        if self.top_logprobs and not self.logprobs:
            raise InvalidInputError("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return GenerationRequest(
            self.prompt_of(server, self.messages),
            self.sampling(max_stops=limits.max_stop_sequences, logprobs=logprobs),
            self.n,
            output_format=self.output_format(),
            truncation=self.resolved(),
            thinking_budget=self.thinking_budget,
        )
