"""POST /v1/moderations: OpenAI's shape, from a classifier whose labels a catalogue entry maps."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request

from config.catalog import MODERATION_CATEGORIES, ModelSpec
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.classification import check_inputs
from deployments.ingress.schemas import HARD_LIST_LIMIT, Body, LenientBody, ModelName, Reply, Texts
from deployments.ingress.server import Endpoint, Server
from models.errors import (
    InvalidInputError,
    NoModelForTaskError,
    UnsupportedInputError,
    UnsupportedTaskError,
)
from models.types.classification import ClassificationRequest, ClassificationResult

FLAGGED = 0.5
"""The score from which a category is said to apply."""
CATEGORIES = tuple(sorted(MODERATION_CATEGORIES))


class TextPart(Body):
    type: Literal["text"]
    text: str


class ImagePart(Body):
    type: Literal["image_url"]


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Parts = Annotated[list[Part], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)]


class ModerationsBody(KeepAliveFields, LenientBody):
    """Texts, or parts of one input; images are refused. Nothing is cut: what is not read is not
    moderated.
    """

    input: str | Texts | Parts
    model: ModelName | None = None


class ModerationResult(Reply):
    """`category_applied_input_types` is empty for the categories that the model does not know."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class Moderations(Reply):
    id: str
    model: str
    results: list[ModerationResult]


async def moderate(server: Server, request: Request, body: ModerationsBody) -> Moderations:
    """Say which of OpenAI's categories texts fall into."""
    del request
    texts, joined = _texts(body.input)
    check_inputs(server, "input", texts)
    spec = _moderator(server, body.model)
    job = ClassificationRequest(texts, truncate=False)
    result = await server.clients.classification.labels.submit(spec.id, job)
    rows = _category_scores(spec, result)
    if joined:
        rows = [{name: max(row[name] for row in rows) for name in CATEGORIES}]
    known = set(spec.moderation_labels.values())
    return Moderations(
        id=f"modr-{uuid.uuid4().hex}", model=spec.id, results=[_verdict(row, known) for row in rows]
    )


def _moderator(server: Server, name: str | None) -> ModelSpec:
    """The named model, or the first that has a label map. Raises ModelNotFoundError and others."""
    if name is None:
        specs = server.catalog.of_task("classification")
        name = next((spec.id for spec in specs if spec.moderation_labels), None)
        if name is None:
            raise NoModelForTaskError("moderation")
    spec = server.model(name, "classification")
    if not spec.moderation_labels:
        message = f"The model '{spec.id}' has no 'moderation_labels' in the catalogue."
        raise UnsupportedTaskError(message, "model")
    return spec


def _texts(wire: str | list[str] | list[TextPart | ImagePart]) -> tuple[tuple[str, ...], bool]:
    """The texts, and whether they are parts of one input."""
    if isinstance(wire, str):
        return (wire,), False
    if isinstance(wire[0], str):
        return tuple(text for text in wire if isinstance(text, str)), False
    if any(isinstance(part, ImagePart) for part in wire):
        raise UnsupportedInputError("Images are not moderated here.", "input")
    texts = tuple(part.text for part in wire if isinstance(part, TextPart))
    if not texts:
        raise InvalidInputError("There is no text to moderate.", "input")
    return texts, True


def _category_scores(spec: ModelSpec, result: ClassificationResult) -> list[dict[str, float]]:
    """Of each category the highest score among the labels that stand for it; 0 without any."""
    labels = spec.moderation_labels
    rows = []
    for row in result.scores.tolist():
        scores = dict.fromkeys(CATEGORIES, 0.0)
        for label, score in zip(result.labels, row, strict=True):
            if label in labels:
                category = labels[label]
                scores[category] = max(scores[category], score)
        rows.append(scores)
    return rows


def _verdict(scores: dict[str, float], known: set[str]) -> ModerationResult:
    categories = {name: score >= FLAGGED for name, score in scores.items()}
    return ModerationResult(
        flagged=any(categories.values()),
        categories=categories,
        category_scores=scores,
        category_applied_input_types={name: _types(name in known) for name in CATEGORIES},
    )


def _types(known: bool) -> list[Literal["text"]]:
    return ["text"] if known else []


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint(
        "POST",
        "/v1/moderations",
        moderate,
        "moderations",
        body=ModerationsBody,
        response=Moderations,
    ),
)
