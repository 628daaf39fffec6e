"""POST /v1/ocr: Mistral's shape, and the predecessor's when `images` or a `file_id` are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.document_answers import Asked, annotation, ask, fields_of
from deployments.ingress.document_inputs import Input, find_input
from deployments.ingress.document_reading import read_pages, text_reader
from deployments.ingress.routes.ocr_crops import add_crops
from deployments.ingress.routes.ocr_files import file_reply
from deployments.ingress.routes.ocr_mistral import MistralShape
from deployments.ingress.routes.ocr_output import (
    ANNOTATION,
    FileFormat,
    annotation_format,
    file_format,
)
from deployments.ingress.routes.ocr_reply import ImagesShape, Shape
from deployments.ingress.routes.ocr_request import (
    MEDIA_TYPES,
    OcrBody,
    OcrCall,
    OcrOptions,
    read_ocr_call,
)
from deployments.ingress.routes.ocr_schemas import OcrAnswer, OcrPage, OcrReply
from deployments.ingress.server import Endpoint, Server
from deployments.ingress.sse import event_stream
from deployments.ingress.wire_names import wire_names
from models.errors import InvalidInputError
from models.types.generation import OutputFormat
from models.types.pages import DocumentPage

ANNOTATION_TOKENS = 4096
"""The longest annotation of a document."""


async def recognize_text(server: Server, request: Request, call: OcrCall) -> Response | BaseModel:
    """Read the text of images and documents, with positions."""
    spec = text_reader(server, call.options.model)
    file = file_format(call.options, request.query_params)
    wanted = annotation_format(call.options)
    _check(call, file, wanted)
    inputs = [await find_input(server, request, reference) for reference in call.references]
    size = sum(document.size for document in inputs)
    shape: Shape = MistralShape(spec.id, size, call.options)
    if call.as_images:
        shape = ImagesShape(spec.id, call.options.return_boxes)
    pages = read_pages(server, spec.id, call.options, inputs)
    cut = partial(_cut, server, call.options, inputs)
    if file is not None:
        return await file_reply(server, file, spec.id, call.options, inputs, pages)
    if call.options.stream:
        return await event_stream(_events(pages, shape, cut))
    async with aclosing(pages):
        read = [page async for page in pages]
    reply = await asyncio.to_thread(shape.whole, read)
    if isinstance(reply, OcrReply):
        for page in reply.pages:
            await cut(page)
    if wanted is not None and isinstance(reply, OcrReply):
        reply.document_annotation = await _annotated(server, call.options, read, wanted)
    return reply


def _check(call: OcrCall, file: FileFormat | None, annotation: OutputFormat | None) -> None:
    """Raises InvalidInputError for what does not go together."""
    options = call.options
    if file is not None and options.stream:
        raise InvalidInputError("A stream has pages as JSON only.", "stream")
    if annotation is not None and (file or options.stream or call.as_images):
        raise InvalidInputError(
            "A document is annotated in a whole answer in Mistral's shape only.", ANNOTATION
        )
    if options.include_image_base64 and len(call.references) > 1:
        raise InvalidInputError(
            "Pictures are cut out of one document at a time.", "include_image_base64"
        )


async def _annotated(
    server: Server, options: OcrOptions, pages: list[DocumentPage], wanted: OutputFormat
) -> str:
    """JSON text about the document, by a chat model."""
    spec = server.model(options.annotation_model, "generation")
    asked = Asked(server, spec.id, ANNOTATION_TOKENS)
    instruction = options.document_annotation_prompt or ""
    with wire_names({"prompt": "pages", "response_format": ANNOTATION, "max_tokens": ANNOTATION}):
        request = await asyncio.to_thread(annotation, asked, pages, wanted, instruction)
        (answer,) = await ask(asked, [request])
        await fields_of(answer, [])  # refuses what was cut off
    return answer.text


async def _cut(
    server: Server, options: OcrOptions, inputs: Sequence[Input], page: BaseModel
) -> None:
    """Add the pictures of a page where they are asked for."""
    if options.include_image_base64 and isinstance(page, OcrPage):
        await add_crops(server, options, inputs[0], page)


async def _events(
    pages: AsyncGenerator[DocumentPage],
    shape: Shape,
    cut: Callable[[BaseModel], Awaitable[None]],
) -> AsyncGenerator[bytes]:
    count = 0
    async with aclosing(pages):
        async for page in pages:
            count += 1
            reply = await asyncio.to_thread(shape.page, page)
            await cut(reply)
            yield _event(reply)
    yield _event(shape.end(count))


def _event(reply: BaseModel) -> bytes:
    return b"data: %b\n\n" % reply.model_dump_json().encode()


def _endpoint(path: str) -> Endpoint:
    return Endpoint(
        "POST",
        path,
        recognize_text,
        "OCR",
        body=OcrBody,
        response=OcrAnswer,
        media_types=MEDIA_TYPES,
        reader=read_ocr_call,
        uploads=True,
        streams=True,
    )


ENDPOINTS = (_endpoint("/v1/ocr"), _endpoint("/v1/vision/ocr"))
