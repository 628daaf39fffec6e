"""POST /v1/documents/extract: fields, answers and labels, in the predecessor's shape."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from starlette.requests import Request

from config.catalog import ModelSpec
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
from deployments.ingress.document_inputs import Input, find_input
from deployments.ingress.document_reading import read_pages, text_reader
from deployments.ingress.generations import Completed
from deployments.ingress.routes.document_models import ask_document_model
from deployments.ingress.routes.document_schemas import (
    DocumentAnswer,
    DocumentsReply,
    DocumentsUsage,
    ExtractBody,
    ExtractedField,
    mean_confidence,
)
from deployments.ingress.schemas import schema_text
from deployments.ingress.server import Endpoint, Server, check_count
from deployments.ingress.wire_names import wire_names
from models.errors import InvalidInputError
from models.types.pages import DocumentPage


@dataclass(frozen=True, slots=True)
class _Document:
    """Pages of one document, and what is asked about it."""

    index: int
    pages: list[DocumentPage]
    prompts: tuple[str, ...]


async def extract(server: Server, request: Request, body: ExtractBody) -> DocumentsReply:
    """Extract fields from documents, answer questions about them, or classify them."""
    spec = _answerer(server, body.model)
    references = body.references
    check_count("images", len(references), server.config.limits.max_images)
    body.asked_of(0, len(references))
    inputs = [await find_input(server, request, reference) for reference in references]
    if spec.reads_documents:
        return await ask_document_model(server, spec, body, inputs)
    if body.task == "classification" and len(set(body.labels or ())) < 2:
        raise InvalidInputError("A classification needs different 'labels'.", "labels")
    documents = await _read(server, body, inputs)
    return await _asked_chat(Asked(server, spec.id, body.max_tokens), documents, body)


def _answerer(server: Server, name: str | None) -> ModelSpec:
    """The document model of that name, or the chat model; by default the first chat model."""
    spec = None if name is None else server.catalog.find(name)
    if spec is not None and spec.reads_documents:
        return server.model(name, "ocr")
    return server.model(name, "generation")


async def _read(server: Server, body: ExtractBody, inputs: Sequence[Input]) -> list[_Document]:
    reader = text_reader(server, body.ocr_model)
    documents = []
    for index, document in enumerate(inputs):
        async with aclosing(read_pages(server, reader.id, body, [document])) as pages:
            read = [page async for page in pages]
        documents.append(_Document(index, read, body.asked_of(index, len(inputs))))
    return documents


async def _asked_chat(
    asked: Asked, documents: Sequence[_Document], body: ExtractBody
) -> DocumentsReply:
    """What a chat model makes of the text of the pages."""
    names = {"prompt": "pages", "response_format": "schema", "messages": "model"}
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


async def _extracted(
    asked: Asked, documents: Sequence[_Document], body: ExtractBody
) -> tuple[list[DocumentAnswer], list[Completed]]:
    schema = schema_text(body.fields or UNNAMED_FIELDS, "schema")
    requests = [
        await asyncio.to_thread(extraction, asked, d.pages, schema, d.prompts[0]) for d in documents
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
                confidence=mean_confidence([field.confidence for field in fields]),
                data=value,
                fields=[_field(field) for field in fields],
            )
        )
    return data, answers


async def _answered(
    asked: Asked, documents: Sequence[_Document]
) -> tuple[list[DocumentAnswer], list[Completed]]:
    """Every page gets its document's questions."""
    pages = [(d, page, text) for d in documents for page in d.pages for text in d.prompts]
    requests = [await asyncio.to_thread(question, asked, page, text) for _, page, text in pages]
    answers = await ask(asked, requests)
    data = []
    for index, ((document, page, text), answer) in enumerate(zip(pages, answers, strict=True)):
        _, (field,) = await fields_of(answer, [page])
        data.append(
            DocumentAnswer(
                index=index,
                document=document.index,
                page=page.index,
                confidence=field.confidence,
                question=text,
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
        for request in await asyncio.to_thread(
            label_requests, asked, page, labels, document.prompts[0]
        )
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
