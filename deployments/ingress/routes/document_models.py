"""What document models answer, in the shape of POST /v1/documents/extract."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing

from config.catalog import ModelSpec
from deployments.ingress.document_inputs import Input
from deployments.ingress.document_reading import document_request, text_reader
from deployments.ingress.routes.document_schemas import (
    DocumentAnswer,
    DocumentsReply,
    DocumentsUsage,
    ExtractBody,
    ExtractedField,
    mean_confidence,
)
from deployments.ingress.server import Server
from models.errors import InvalidInputError
from models.types.pages import DocumentQuestions, PageAnswers, PageField


async def ask_document_model(
    server: Server, spec: ModelSpec, body: ExtractBody, inputs: Sequence[Input]
) -> DocumentsReply:
    """All documents at once; their pages share batches. Raises ModelError."""
    _check(body)
    ocr = text_reader(server, body.ocr_model)

    async def pages_of(index: int, document: Input) -> list[PageAnswers]:
        wanted = document_request(server, body, document.source, document.param)
        questions = body.asked_of(index, len(inputs)) if body.task == "vqa" else ()
        asked = DocumentQuestions(body.task, questions)
        pages = server.clients.ocr.answer_document(spec.id, ocr.id, wanted, asked)
        async with aclosing(pages):
            return [page async for page in pages]

    reading = [asyncio.ensure_future(pages_of(*numbered)) for numbered in enumerate(inputs)]
    try:
        documents = await asyncio.gather(*reading)
    finally:
        for task in reading:
            task.cancel()
    every = [page for pages in documents for page in pages]
    return DocumentsReply(
        data=list(_numbered(body, documents)),
        task=body.task,
        model=spec.id,
        usage=DocumentsUsage(
            documents_processed=len(documents),
            pages_processed=len(every),
            prompt_tokens=sum(page.prompt_tokens for page in every),
            completion_tokens=sum(page.completion_tokens for page in every),
        ),
    )


def _check(body: ExtractBody) -> None:
    """Raises InvalidInputError for what only a chat model can be told."""
    if body.fields is not None:
        raise InvalidInputError("This model has its own fields: send no 'schema'.", "schema")
    if body.labels is not None:
        raise InvalidInputError("This model has its own labels: send none.", "labels")
    if body.task != "vqa" and body.prompts is not None:
        raise InvalidInputError("This model takes 'prompts' only as questions (vqa).", "prompts")


def _numbered(
    body: ExtractBody, documents: Sequence[Sequence[PageAnswers]]
) -> Iterator[DocumentAnswer]:
    index = 0
    for number, pages in enumerate(documents):
        for page in pages:
            for answer in _answers(body, page):
                yield answer.model_copy(update={"index": index, "document": number})
                index += 1


def _answers(body: ExtractBody, page: PageAnswers) -> Iterator[DocumentAnswer]:
    """The fields or the label of a page, or each of its answers, not yet numbered."""
    if body.task == "extraction":
        fields = [_field(field, page.index) for field in page.fields]
        confidence = mean_confidence([field.confidence for field in fields])
        yield _entry(page, confidence, data=page.data, fields=fields)
    elif body.task == "vqa":
        for field in page.fields:
            found = _field(field, page.index)
            named = {"question": field.key, "answer": field.value, "bbox": found.bbox}
            yield _entry(page, found.confidence, **named)
    else:
        scores = dict(page.labels)
        best = max(scores, key=scores.__getitem__)
        yield _entry(page, scores[best], classification=best, classification_scores=scores)


def _entry(page: PageAnswers, confidence: float | None, **found: object) -> DocumentAnswer:
    values = {"index": 0, "document": 0, "page": page.index, "confidence": confidence, **found}
    return DocumentAnswer.model_validate(values)


def _field(field: PageField, page: int) -> ExtractedField:
    recognition = 1.0 if field.ocr_confidence is None else field.ocr_confidence
    return ExtractedField(
        key=field.key,
        value=field.value,
        confidence=field.probability * recognition,
        bbox=None if field.box is None else list(field.box),
        page=page,
        model_confidence=field.probability,
        ocr_confidence=field.ocr_confidence,
    )
