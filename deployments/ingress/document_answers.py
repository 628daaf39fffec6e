"""What a chat model makes of the text of pages: typed fields, answers, labels.

Nothing here needs a model for documents: pages are written as markdown into the prompt, and what
is answered is looked up on the pages again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any

from deployments.ingress.generations import Completed, collect
from deployments.ingress.server import Server
from models.errors import InvalidInputError
from models.page_fields.json_leaves import Leaf, Scalar, leaves
from models.page_fields.matching import PageWords, Place
from models.page_fields.token_scores import TokenScores
from models.page_formats.markdown import page_markdown
from models.types.generation import (
    ChatPrompt,
    GenerationRequest,
    Message,
    OutputFormat,
    SamplingParams,
)
from models.types.pages import DocumentPage

ROLE = (
    "You read documents. Answer with what the document says, in its own words and numbers, and "
    "with nothing else."
)
EXTRACT = "Extract the fields that the JSON Schema asks for from the document."
NO_THINKING = (("enable_thinking", False),)
"""For templates that know it: the answer is limited to what a schema allows."""
UNNAMED_FIELDS = {
    "type": "object",
    "properties": {
        "fields": {
            "type": "array",
            "maxItems": 16,
            "items": {
                "type": "object",
                "properties": {
                    "key": {"type": "string", "maxLength": 48},
                    "value": {"type": "string", "maxLength": 160},
                },
                "required": ["key", "value"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["fields"],
    "additionalProperties": False,
}
"""When no schema names the fields: whatever the model finds, within bounds."""
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "string", "maxLength": 512}},
    "required": ["answer"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A value, where it stands (None: nowhere, perhaps made up), how sure the model was of it."""

    key: str
    value: Scalar
    place: Place | None
    probability: float | None

    @property
    def confidence(self) -> float | None:
        """That of the model times that of recognition, of those that are known."""
        known = [self.probability, self.place.confidence if self.place else None]
        factors = [factor for factor in known if factor is not None]
        return factors[0] * (factors[1] if len(factors) > 1 else 1.0) if factors else None


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked, and how long the answer may be."""

    server: Server
    model_id: str
    max_tokens: int


async def ask(asked: Asked, requests: Sequence[GenerationRequest]) -> list[Completed]:
    """One whole answer to each. Raises ModelError."""
    at_once = asked.server.config.limits.max_completions
    answers: list[Completed] = []
    for start in range(0, len(requests), at_once):
        some = list(requests[start : start + at_once])
        stream = asked.server.clients.generation.stream(asked.model_id, some)
        answers += await collect(stream, len(some))
    return answers


def extraction(
    asked: Asked, pages: Sequence[DocumentPage], schema: str, instruction: str
) -> GenerationRequest:
    """Ask for the fields of a schema, which is JSON text, in all the pages together."""
    question = f"{instruction or EXTRACT}\n\nJSON Schema:\n{schema}"
    return _request(asked, pages, question, OutputFormat("json_schema", schema))


def annotation(
    asked: Asked, pages: Sequence[DocumentPage], wanted: OutputFormat, instruction: str
) -> GenerationRequest:
    """Ask for JSON about all the pages together."""
    return _request(asked, pages, instruction or EXTRACT, wanted)


def question(asked: Asked, page: DocumentPage, text: str) -> GenerationRequest:
    wanted = OutputFormat("json_schema", json.dumps(ANSWER))
    return _request(asked, [page], text, wanted)


def label_requests(
    asked: Asked, page: DocumentPage, labels: Sequence[str], instruction: str
) -> list[GenerationRequest]:
    """One for each label, which is made to be the answer, to see how likely it is."""
    text = f"{instruction or 'What kind of document is this?'} Answer with one of: "
    text += "; ".join(labels) + "."
    request = _request(asked, [page], text, OutputFormat("choice"))
    formats = [OutputFormat("choice", json.dumps([label])) for label in labels]
    return [replace(request, output_format=wanted) for wanted in formats]


def label_scores(labels: Sequence[str], answers: Sequence[Completed]) -> dict[str, float]:
    """Probabilities that sum to 1: those of the labels as answers, none other being possible."""
    logs = [TokenScores(a.text, a.logprobs).log_probability() for a in answers]
    known = [float("-inf") if log is None else log for log in logs]
    peak = max(known)
    if peak == float("-inf"):
        return dict.fromkeys(labels, 1 / len(labels))
    weights = [exp(log - peak) for log in known]
    return {label: w / sum(weights) for label, w in zip(labels, weights, strict=True)}


async def fields_of(
    answer: Completed, pages: Sequence[DocumentPage], *, named: bool = True
) -> tuple[Any, list[Field]]:
    """The answer's JSON, and its values with their places.

    `named` False: it is of UNNAMED_FIELDS, whose keys the model has found too. Raises
    InvalidInputError for an answer that was cut off.
    """
    return await asyncio.to_thread(_fields, answer, pages, named)


def _fields(
    answer: Completed, pages: Sequence[DocumentPage], named: bool
) -> tuple[Any, list[Field]]:
    try:
        found = leaves(answer.text)
        value = json.loads(answer.text)
    except ValueError:
        message = "The answer does not fit into 'max_tokens', or cannot be limited to the schema."
        raise InvalidInputError(message, "max_tokens") from None
    words, scores = PageWords(pages), TokenScores(answer.text, answer.logprobs)
    keys = [leaf.key for leaf in found]
    if not named:
        pairs = list(zip(found[::2], found[1::2], strict=True))
        keys = [str(key.value) for key, _ in pairs]
        found = [leaf for _, leaf in pairs]
    return value, [_field(key, leaf, words, scores) for key, leaf in zip(keys, found, strict=True)]


def _field(key: str, leaf: Leaf, words: PageWords, scores: TokenScores) -> Field:
    place = words.find(leaf.value, key)
    return Field(key, leaf.value, place, scores.probability(leaf.start, leaf.stop))


def _request(
    asked: Asked, pages: Sequence[DocumentPage], text: str, wanted: OutputFormat
) -> GenerationRequest:
    read = "\n\n".join(page_markdown(page.page) for page in pages)
    messages = (Message("system", ROLE), Message("user", f"Document:\n\n{read}\n\n{text}"))
    sampling = SamplingParams(max_tokens=asked.max_tokens, temperature=0.0, logprobs=0)
    prompt = ChatPrompt(messages, options=NO_THINKING)
    return GenerationRequest(prompt, sampling, output_format=wanted)
