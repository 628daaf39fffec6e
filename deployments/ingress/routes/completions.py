"""POST /v1/completions."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.generations import Completed, collect, usage_of
from deployments.ingress.schemas import (
    CompletionUsage,
    FinishReason,
    Reply,
    SamplingBody,
    Texts,
    TokenIds,
    TokenLists,
)
from deployments.ingress.server import Endpoint, Server, check_choices, check_texts
from deployments.ingress.sse import event_stream
from models.errors import InvalidInputError
from models.types import (
    ChoiceDelta,
    GenerationRequest,
    Prompt,
    TextPrompt,
    TokenLogprob,
    TokenPrompt,
)


class CompletionBody(SamplingBody):
    """OpenAI's legacy request; docs/api.md lists how each field is treated."""

    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = 16
    prompt: str | Texts | TokenIds | TokenLists
    echo: bool | None = False
    suffix: str | None = None
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


class CompletionLogprobs(Reply):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(Reply):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None


class Completion(Reply):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None


async def create_completion(
    server: Server, request: Request, body: CompletionBody
) -> Completion | Response:
    """Continue one prompt or several, whole or as a stream of chunks."""
    del request
    spec = server.model(body.model, "generation")
    jobs = _generation_requests(server, body)
    deltas = server.clients.generation.stream(spec.id, jobs)
    template = Completion(
        id=f"cmpl-{uuid.uuid4().hex}",
        object="text_completion",
        created=int(time.time()),
        model=spec.id,
        choices=[],
    )
    if body.stream:
        return await event_stream(_chunks(deltas, template, body))
    choices = await collect(deltas, len(jobs) * body.n)
    reply = [_choice(index, choice, body) for index, choice in enumerate(choices)]
    return template.model_copy(
        update={"choices": reply, "usage": usage_of(_by_prompt(choices, body.n))}
    )


def _generation_requests(server: Server, body: CompletionBody) -> list[GenerationRequest]:
    limits = server.config.limits
    _refuse_unsupported(body)
    prompts = _prompts(body.prompt)
    check_choices(body.n, limits.max_choices)
    if len(prompts) * body.n > limits.max_completions:
        message = f"{len(prompts)} prompts with {body.n} choices each are too many; "
        raise InvalidInputError(message + f"the limit is {limits.max_completions}.", "prompt")
    check_texts(server, "prompt", [_content(prompt) for prompt in prompts])
    if any(not _content(prompt) for prompt in prompts):
        raise InvalidInputError("A prompt must not be empty.", "prompt")
    sampling = body.sampling(max_stops=limits.max_stop_sequences, logprobs=body.logprobs)
    return [GenerationRequest(prompt, sampling, body.n) for prompt in prompts]


def _refuse_unsupported(body: CompletionBody) -> None:
    refused = {
        "echo": body.echo,
        "suffix": body.suffix,
        "best_of": body.best_of is not None and body.best_of != body.n,
    }
    for param, value in refused.items():
        if value:
            raise InvalidInputError(f"'{param}' is not supported by this server.", param)


def _prompts(wire: str | list[str] | list[int] | list[list[int]]) -> list[Prompt]:
    if isinstance(wire, str):
        return [TextPrompt(wire)]
    if isinstance(wire[0], int):
        return [TokenPrompt(tuple(wire))]
    return [TextPrompt(p) if isinstance(p, str) else TokenPrompt(tuple(p)) for p in wire]


def _content(prompt: Prompt) -> str | tuple[int, ...]:
    if isinstance(prompt, TextPrompt):
        return prompt.text
    return prompt.token_ids if isinstance(prompt, TokenPrompt) else ""


def _by_prompt(choices: list[Completed], n: int) -> list[list[Completed]]:
    return [choices[start : start + n] for start in range(0, len(choices), n)]


def _choice(index: int, choice: Completed, body: CompletionBody) -> CompletionChoice:
    return CompletionChoice(
        index=index,
        text=choice.text,
        logprobs=None if body.logprobs is None else _logprobs(choice.logprobs, 0),
        finish_reason=choice.finish_reason,
    )


async def _chunks(
    deltas: AsyncGenerator[list[ChoiceDelta]], template: Completion, body: CompletionBody
) -> AsyncGenerator[Sequence[Completion]]:
    usages: dict[int, Completed] = {}
    offsets: dict[int, int] = {}
    async for group in deltas:
        chunks = []
        for item in group:
            offset = offsets.get(item.index, 0)
            chunks.append(template.model_copy(update={"choices": [_chunk(item, offset)]}))
            offsets[item.index] = offset + len(item.delta.text)
            if item.delta.usage:
                usages[item.index] = Completed(usage=item.delta.usage)
        yield chunks
    if body.include_usage:
        finished = [choice for _, choice in sorted(usages.items())]
        yield [template.model_copy(update={"usage": usage_of(_by_prompt(finished, body.n))})]


def _chunk(item: ChoiceDelta, offset: int) -> CompletionChoice:
    delta = item.delta
    return CompletionChoice(
        index=item.index,
        text=delta.text,
        logprobs=_logprobs(delta.logprobs, offset) if delta.logprobs else None,
        finish_reason=delta.finish_reason,
    )


def _logprobs(entries: Sequence[TokenLogprob], offset: int) -> CompletionLogprobs:
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry.text)
    return CompletionLogprobs(
        tokens=[entry.text for entry in entries],
        token_logprobs=[entry.logprob for entry in entries],
        top_logprobs=[{top.text: top.logprob for top in entry.top} for entry in entries],
        text_offset=offsets,
    )


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/completions",
        create_completion,
        "generation",
        body=CompletionBody,
        response=Completion,
        streams=True,
    ),
)
