"""POST /v1/chat/completions."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.generations import Completed, collect, usage_of
from deployments.ingress.schemas import (
    Body,
    CompletionUsage,
    FinishReason,
    Reply,
    SamplingBody,
)
from deployments.ingress.server import Endpoint, Server, check_choices, check_count, check_texts
from deployments.ingress.sse import event_stream
from models.errors import InvalidInputError
from models.types import ChatPrompt, ChoiceDelta, GenerationRequest, Message, TokenLogprob, Usage

MAX_PARTS = 1024
Objects = Annotated[list[dict[str, Any]], Field(max_length=1024, fail_fast=True)]


class ContentPart(Body):
    """Only text parts are served."""

    type: Annotated[str, Field(max_length=64)]
    text: str | None = None


ContentParts = Annotated[list[ContentPart], Field(max_length=MAX_PARTS, fail_fast=True)]


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | ContentParts | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: Objects | None = None


class ResponseFormat(Body):
    type: Annotated[str, Field(max_length=64)]


class ChatBody(SamplingBody):
    """OpenAI's request; docs/api.md lists how each field is treated."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Objects | None = None
    functions: Objects | None = None
    tool_choice: str | dict[str, Any] | None = None
    modalities: Annotated[list[str], Field(max_length=16, fail_fast=True)] | None = None
    audio: dict[str, Any] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None

    @property
    def token_limit(self) -> int | None:
        limit = self.max_completion_tokens
        return self.max_tokens if limit is None else limit


class TopLogprob(Reply):
    token: str
    logprob: float
    bytes: list[int] | None


class ContentLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Reply):
    content: list[ContentLogprob] | None
    refusal: list[ContentLogprob] | None = None


class AssistantMessage(Reply):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None


class ChatChoice(Reply):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Reply):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class ChunkDelta(Reply):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(Reply):
    index: int
    delta: ChunkDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(Reply):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None


OPENING = ChunkDelta(role="assistant", content="")


async def create_chat_completion(
    server: Server, request: Request, body: ChatBody
) -> ChatCompletion | Response:
    """Answer a conversation, whole or as a stream of chunks."""
    del request
    spec = server.model(body.model, "generation")
    job = _generation_request(server, body)
    deltas = server.clients.generation.stream(spec.id, [job])
    completion_id, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    if body.stream:
        template = ChatCompletionChunk(
            id=completion_id,
            object="chat.completion.chunk",
            created=created,
            model=spec.id,
            choices=[],
        )
        return await event_stream(_chunks(deltas, template, body))
    choices = await collect(deltas, body.n)
    return ChatCompletion(
        id=completion_id,
        created=created,
        model=spec.id,
        choices=[_choice(index, choice, body) for index, choice in enumerate(choices)],
        usage=usage_of([choices]),
    )


def _generation_request(server: Server, body: ChatBody) -> GenerationRequest:
    limits = server.config.limits
    _refuse_unsupported(body)
    check_count("messages", len(body.messages), limits.max_messages)
    check_choices(body.n, limits.max_choices)
    messages = tuple(_message(message, index) for index, message in enumerate(body.messages))
    check_texts(server, "messages", [message.content for message in messages])
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    if body.top_logprobs and not body.logprobs:
        raise InvalidInputError("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    sampling = body.sampling(max_stops=limits.max_stop_sequences, logprobs=logprobs)
    return GenerationRequest(ChatPrompt(messages), sampling, body.n)


def _refuse_unsupported(body: ChatBody) -> None:
    """What would change the answer and cannot be honoured is refused, never dropped."""
    format_type = body.response_format.type if body.response_format else "text"
    refused = {
        "tools": body.tools,
        "functions": body.functions,
        "audio": body.audio,
        "chat_template": body.chat_template,
        "chat_template_kwargs": body.chat_template_kwargs,
        "web_search_options": body.web_search_options,
        "response_format": format_type != "text",
        "modalities": body.modalities not in (None, ["text"]),
        "tool_choice": body.tool_choice not in (None, "none", "auto"),
    }
    for param, value in refused.items():
        if value:
            raise InvalidInputError(f"'{param}' is not supported by this server.", param)


def _message(message: ChatMessage, index: int) -> Message:
    param = f"messages.{index}.content"
    if message.tool_calls:
        param = f"messages.{index}.tool_calls"
        raise InvalidInputError("'tool_calls' is not supported by this server.", param)
    if isinstance(message.content, str):
        return Message(message.role, message.content, message.name)
    parts = message.content or []
    if any(part.type != "text" or part.text is None for part in parts) or not parts:
        raise InvalidInputError("A message needs content: a text or a list of text parts.", param)
    return Message(message.role, "".join(part.text or "" for part in parts), message.name)


def _choice(index: int, choice: Completed, body: ChatBody) -> ChatChoice:
    return ChatChoice(
        index=index,
        message=AssistantMessage(content=choice.text),
        logprobs=_logprobs(choice.logprobs) if body.logprobs else None,
        finish_reason=choice.finish_reason,
    )


async def _chunks(
    deltas: AsyncGenerator[list[ChoiceDelta]], template: ChatCompletionChunk, body: ChatBody
) -> AsyncGenerator[Sequence[ChatCompletionChunk]]:
    usages: dict[int, Usage] = {}
    opening = [
        _chunk(template, ChunkChoice(index=index, delta=OPENING, finish_reason=None))
        for index in range(body.n)
    ]
    async for group in deltas:
        yield [*opening, *(_chunk(template, c) for item in group for c in _chunk_choices(item))]
        opening = []
        usages |= {item.index: item.delta.usage for item in group if item.delta.usage}
    if body.include_usage:
        choices = [Completed(usage=usage) for _, usage in sorted(usages.items())]
        yield [template.model_copy(update={"usage": usage_of([choices])})]


def _chunk(template: ChatCompletionChunk, choice: ChunkChoice) -> ChatCompletionChunk:
    return template.model_copy(update={"choices": [choice]})


def _chunk_choices(item: ChoiceDelta) -> list[ChunkChoice]:
    """The text of a delta, then its end, in chunks of their own as OpenAI sends them."""
    delta, choices = item.delta, []
    if delta.text or delta.logprobs:
        text = ChunkDelta(content=delta.text)
        choice = ChunkChoice(index=item.index, delta=text, finish_reason=None)
        if delta.logprobs:
            choice.logprobs = _logprobs(delta.logprobs)
        choices.append(choice)
    if delta.finish_reason is not None:
        end = ChunkChoice(index=item.index, delta=ChunkDelta(), finish_reason=delta.finish_reason)
        choices.append(end)
    return choices


def _logprobs(logprobs: Sequence[TokenLogprob]) -> ChatLogprobs:
    content = [
        ContentLogprob(
            token=entry.text,
            logprob=entry.logprob,
            bytes=list(entry.raw),
            top_logprobs=[
                TopLogprob(token=top.text, logprob=top.logprob, bytes=list(top.raw))
                for top in entry.top
            ],
        )
        for entry in logprobs
    ]
    return ChatLogprobs(content=content)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/chat/completions",
        create_chat_completion,
        "generation",
        body=ChatBody,
        response=ChatCompletion,
        streams=True,
    ),
)
