"""POST /v1/completions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.generations import Completed, by_prompt, collect, finite, usage_of
from deployments.ingress.output_format import OutputFormatFields
from deployments.ingress.routes.completion_reply import (
    Completion,
    completion_choice,
    completion_chunks,
)
from deployments.ingress.schemas import SamplingBody, Texts, TokenIds, TokenLists
from deployments.ingress.server import Endpoint, Server, check_choices, check_texts
from deployments.ingress.sse import Envelope, event_stream
from models.errors import InvalidInputError
from models.types.generation import GenerationRequest, InfillPrompt, Prompt, TextPrompt, TokenPrompt


class CompletionBody(SamplingBody, OutputFormatFields):
    """OpenAI's legacy request; docs/api.md lists how each field is treated."""

    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = 16
    prompt: str | Texts | TokenIds | TokenLists
    echo: bool = False
    suffix: str = ""
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def candidates(self) -> int:
        """Completions per prompt, of which the best `n` are answered."""
        return self.n if self.best_of is None else self.best_of

    def generation_requests(self, server: Server) -> list[GenerationRequest]:
        """One per prompt. Raises InvalidInputError for what cannot be honoured."""
        limits = server.config.limits
        prompts = self._prompts(server)
        self._check_candidates(len(prompts), server)
        if self.max_tokens == 0 and not self.echo:
            raise InvalidInputError("'max_tokens' can be 0 only with 'echo'.", "max_tokens")
        sampling = self.sampling(max_stops=limits.max_stop_sequences, logprobs=self.logprobs)
        if self.candidates > self.n:  # they are ranked by their log probabilities
            sampling = replace(sampling, logprobs=self.logprobs or 0)
        output_format = self.output_format()
        return [
            GenerationRequest(
                prompt, sampling, self.candidates, output_format=output_format, echo=self.echo
            )
            for prompt in prompts
        ]

    def _check_candidates(self, prompts: int, server: Server) -> None:
        limits = server.config.limits
        check_choices(self.n, limits.max_choices)
        if self.candidates < self.n:
            raise InvalidInputError("'best_of' must not be less than 'n'.", "best_of")
        if self.candidates > limits.max_choices:
            message = f"'best_of' is {self.candidates}; the limit is {limits.max_choices}."
            raise InvalidInputError(message, "best_of")
        if self.candidates > self.n and self.stream:
            message = "The best completions are known at the end: 'best_of' has no stream."
            raise InvalidInputError(message, "best_of")
        if prompts * self.candidates > limits.max_completions:
            message = f"{prompts} prompts with {self.candidates} choices each are too many; "
            raise InvalidInputError(message + f"the limit is {limits.max_completions}.", "prompt")

    def _prompts(self, server: Server) -> list[Prompt]:
        prompts = _prompts(self.prompt)
        check_texts(server, "prompt", [_content(prompt) for prompt in prompts])
        check_texts(server, "suffix", [self.suffix])
        if self.suffix:
            if self.echo:
                raise InvalidInputError("'echo' is not supported with 'suffix'.", "echo")
            return [_infill(prompt, self.suffix) for prompt in prompts]
        if not all(_content(prompt) for prompt in prompts):
            raise InvalidInputError("A prompt must not be empty.", "prompt")
        return prompts


async def create_completion(
    server: Server, request: Request, body: CompletionBody
) -> Completion | Response:
    """Continue one prompt or several, whole or as a stream of chunks."""
    del request
    spec = server.model(body.model, "generation")
    jobs = body.generation_requests(server)
    deltas = server.clients.generation.stream(spec.id, jobs)
    head = {"id": f"cmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": spec.id}
    if body.stream:
        envelope = Envelope({**head, "object": "text_completion"})
        chunks = completion_chunks(deltas, envelope, n=body.n, include_usage=body.include_usage)
        return await event_stream(chunks)
    completed = await collect(deltas, len(jobs) * body.candidates)
    usages = by_prompt([choice.usage for choice in completed], body.candidates)
    best = _best(completed, jobs, body.n)
    with_logprobs = body.logprobs is not None
    return Completion.model_validate(
        {
            **head,
            "choices": [
                completion_choice(index, choice, logprobs=with_logprobs)
                for index, choice in enumerate(best)
            ],
            "usage": usage_of(usages),
        }
    )


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


def _infill(prompt: Prompt, suffix: str) -> InfillPrompt:
    if not isinstance(prompt, TextPrompt):
        raise InvalidInputError("Only texts have a 'suffix', not token ids.", "suffix")
    return InfillPrompt(prompt.text, suffix)


def _best(
    completed: Sequence[Completed], jobs: Sequence[GenerationRequest], n: int
) -> list[Completed]:
    """The best `n` candidates of each prompt, in the order of the prompts."""
    best: list[Completed] = []
    for index, job in enumerate(jobs):
        candidates = completed[index * job.n : (index + 1) * job.n]
        if job.n > n:
            candidates = sorted(candidates, key=lambda c: _score(c, job.echo), reverse=True)
        best += candidates[:n]
    return best


def _score(completed: Completed, echo: bool) -> float:
    """The mean log probability of the tokens that were generated, not of an echoed prompt."""
    skipped = completed.usage.prompt_tokens if echo else 0
    logprobs = [
        finite(entry.logprob) for entry in completed.logprobs[skipped:] if entry.logprob is not None
    ]
    return sum(logprobs) / len(logprobs) if logprobs else float("-inf")


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
