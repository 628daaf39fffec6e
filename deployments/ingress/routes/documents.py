"""POST /v1/documents/extract: fields, answers and labels, in the predecessor's shape."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import Field as Constraint
from pydantic import model_validator
from starlette.requests import Request

from deployments.ingress.document_answers import (
    UNNAMED_FIELDS,
    Asked,
    Field,
    ask,
    extraction,
    fields_of,
    label_requests,
    label_scores,
    question,
)
from deployments.ingress.document_inputs import find_input
from deployments.ingress.document_reading import ReadOptions, read_pages
from deployments.ingress.generations import Completed
from deployments.ingress.routes.ocr_request import Sources
from deployments.ingress.schemas import ModelName, Omittable, Reply, schema_text
from deployments.ingress.server import Endpoint, Server, check_count
from deployments.ingress.wire_names import wire_names
from models.errors import InvalidInputError
from models.types import DocumentPage

Task = Literal["extraction", "vqa", "classification"]
Prompt = Annotated[str, Constraint(max_length=32_768)]
Label = Annotated[str, Constraint(min_length=1, max_length=256)]


class ExtractBody(ReadOptions, Sources):
    """`model` is the chat model that answers; `ocr_model` reads the pages."""

    task: Task = "extraction"
    ocr_model: ModelName | None = None
    prompts: Annotated[list[Prompt], Constraint(max_length=10_000, fail_fast=True)] | None = None
    """One for each document, or one for all: questions, or what to mind."""
    fields: dict[str, Any] | None = Constraint(None, alias="schema")
    """JSON Schema of what to extract; without one the model chooses."""
    labels: Annotated[list[Label], Constraint(max_length=64, fail_fast=True)] | None = None
    max_tokens: Annotated[int, Constraint(ge=1, le=32_768)] = 2048
    """Of one answer."""

    @model_validator(mode="after")
    def _task_has_what_it_needs(self) -> ExtractBody:
        if self.task == "classification" and len(set(self.labels or ())) < 2:
            raise InvalidInputError("A classification needs different 'labels'.", "labels")
        if self.task == "vqa" and not self.prompts:
            raise InvalidInputError("Questions are sent as 'prompts'.", "prompts")
        return self


class ExtractedField(Reply):
    """`bbox`: left, top, right, bottom in pixels of `page`; null for what is not on the pages.

    `confidence` is `model_confidence` times `ocr_confidence`, of those that are known.
    """

    key: str
    value: str | int | float | bool | None
    confidence: float | None
    bbox: list[float] | None
    page: int | None
    model_confidence: float | None
    ocr_confidence: float | None


class DocumentAnswer(Reply):
    """One document's fields, or the answer or label of one page of it."""

    index: int
    document: int
    page: Omittable[int] = None
    confidence: float | None
    data: Omittable[Any] = None
    fields: Omittable[list[ExtractedField]] = None
    answer: Omittable[str] = None
    bbox: Omittable[list[float]] = None
    classification: Omittable[str] = None
    classification_scores: Omittable[dict[str, float]] = None


class DocumentsUsage(Reply):
    documents_processed: int
    pages_processed: int
    prompt_tokens: int
    completion_tokens: int


class DocumentsReply(Reply):
    object: Literal["list"] = "list"
    data: list[DocumentAnswer]
    task: Task
    model: str
    usage: DocumentsUsage


@dataclass(frozen=True, slots=True)
class _Document:
    """Pages of one document, and what is asked about it."""

    index: int
    pages: list[DocumentPage]
    prompt: str


async def extract(server: Server, request: Request, body: ExtractBody) -> DocumentsReply:
    """Extract fields from documents, answer questions about them, or classify them."""
    asked = Asked(server, server.model(body.model, "generation").id, body.max_tokens)
    names = {"prompt": "pages", "response_format": "schema", "messages": "model"}
    documents = await _read(server, request, body)
    with wire_names(names):
        if body.task == "extraction":
            data, answers = await _extracted(asked, documents, body)
        elif body.task == "vqa":
            data, answers = await _answered(asked, documents)
        else:
            data, answers = await _classified(asked, documents, body.labels or [])
    return DocumentsReply(
        data=data,
        task=body.task,
        model=asked.model_id,
        usage=DocumentsUsage(
            documents_processed=len(documents),
            pages_processed=sum(len(document.pages) for document in documents),
            prompt_tokens=sum(answer.usage.prompt_tokens for answer in answers),
            completion_tokens=sum(answer.usage.completion_tokens for answer in answers),
        ),
    )


async def _read(server: Server, request: Request, body: ExtractBody) -> list[_Document]:
    references = body.references
    check_count("images", len(references), server.config.limits.max_images)
    prompts = body.prompts or [""]
    if len(prompts) not in {1, len(references)}:
        message = f"There are {len(prompts)} prompts for {len(references)} documents."
        raise InvalidInputError(message, "prompts")
    spec = server.model(body.ocr_model, "ocr")
    documents = []
    for index, reference in enumerate(references):
        found = await find_input(server, request, reference)
        async with aclosing(read_pages(server, spec.id, body, [found])) as pages:
            read = [page async for page in pages]
        documents.append(_Document(index, read, prompts[index % len(prompts)]))
    return documents


async def _extracted(
    asked: Asked, documents: Sequence[_Document], body: ExtractBody
) -> tuple[list[DocumentAnswer], list[Completed]]:
    schema = schema_text(body.fields or UNNAMED_FIELDS, "schema")
    requests = [
        await asyncio.to_thread(extraction, asked, d.pages, schema, d.prompt) for d in documents
    ]
    answers = await ask(asked, requests)
    data = []
    for document, answer in zip(documents, answers, strict=True):
        named = body.fields is not None
        value, fields = await fields_of(answer, document.pages, named=named)
        data.append(
            DocumentAnswer(
                index=document.index,
                document=document.index,
                confidence=_mean([field.confidence for field in fields]),
                data=value,
                fields=[_field(field) for field in fields],
            )
        )
    return data, answers


async def _answered(
    asked: Asked, documents: Sequence[_Document]
) -> tuple[list[DocumentAnswer], list[Completed]]:
    """Every page gets its document's question."""
    pages = [(document, page) for document in documents for page in document.pages]
    requests = [await asyncio.to_thread(question, asked, page, d.prompt) for d, page in pages]
    answers = await ask(asked, requests)
    data = []
    for index, ((document, page), answer) in enumerate(zip(pages, answers, strict=True)):
        _, (field,) = await fields_of(answer, [page])
        data.append(
            DocumentAnswer(
                index=index,
                document=document.index,
                page=page.index,
                confidence=field.confidence,
                answer=str(field.value),
                bbox=list(field.place.box) if field.place else None,
            )
        )
    return data, answers


async def _classified(
    asked: Asked, documents: Sequence[_Document], labels: Sequence[str]
) -> tuple[list[DocumentAnswer], list[Completed]]:
    labels = list(dict.fromkeys(labels))
    pages = [(document, page) for document in documents for page in document.pages]
    requests = [
        request
        for document, page in pages
        for request in await asyncio.to_thread(label_requests, asked, page, labels, document.prompt)
    ]
    answers = await ask(asked, requests)
    data = []
    for index, (document, page) in enumerate(pages):
        scores = label_scores(labels, answers[index * len(labels) : (index + 1) * len(labels)])
        best = max(labels, key=scores.__getitem__)
        data.append(
            DocumentAnswer(
                index=index,
                document=document.index,
                page=page.index,
                confidence=scores[best],
                classification=best,
                classification_scores=scores,
            )
        )
    return data, answers


def _field(field: Field) -> ExtractedField:
    place = field.place
    return ExtractedField(
        key=field.key,
        value=field.value,
        confidence=field.confidence,
        bbox=list(place.box) if place else None,
        page=place.page if place else None,
        model_confidence=field.probability,
        ocr_confidence=place.confidence if place else None,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/documents/extract",
        extract,
        "documents",
        body=ExtractBody,
        response=DocumentsReply,
        uploads=True,
    ),
)
