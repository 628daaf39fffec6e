"""POST /v1/ocr: Mistral's shape, and the predecessor's when `images` or a `file_id` are sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.document_inputs import Input, find_input
from deployments.ingress.routes.ocr_files import file_reply
from deployments.ingress.routes.ocr_mistral import MistralShape
from deployments.ingress.routes.ocr_output import file_format
from deployments.ingress.routes.ocr_reply import ImagesShape, Shape
from deployments.ingress.routes.ocr_request import (
    MEDIA_TYPES,
    OcrBody,
    OcrCall,
    OcrOptions,
    document_request,
    read_ocr_call,
)
from deployments.ingress.routes.ocr_schemas import OcrReply
from deployments.ingress.server import Endpoint, Server
from deployments.ingress.sse import event_stream
from models.errors import InvalidInputError, UnsupportedInputError
from models.file_formats import sniff_document
from models.types import DocumentPage, OcrRequest

SEVERAL_PAGES = {"PDF", "TIFF"}


async def recognize_text(server: Server, request: Request, call: OcrCall) -> Response | BaseModel:
    """Read the text of images and documents, with positions."""
    spec = server.model(call.options.model, "ocr")
    file = file_format(call.options, request.query_params)
    if file is not None and call.options.stream:
        raise InvalidInputError("A stream has pages as JSON only.", "stream")
    inputs = [await find_input(server, request, reference) for reference in call.references]
    size = sum(document.size for document in inputs)
    shape: Shape = MistralShape(spec.id, size, call.options)
    if call.as_images:
        shape = ImagesShape(spec.id, call.options.return_boxes)
    pages = _read_all(server, spec.id, call.options, inputs)
    if file is not None:
        return await file_reply(server, file, spec.id, call.options, inputs, pages)
    if call.options.stream:
        return await event_stream(_events(pages, shape))
    async with aclosing(pages):
        return shape.whole([page async for page in pages])


async def _events(pages: AsyncGenerator[DocumentPage], shape: Shape) -> AsyncGenerator[bytes]:
    count = 0
    async with aclosing(pages):
        async for page in pages:
            count += 1
            yield _event(shape.page(page))
    yield _event(shape.end(count))


def _event(reply: BaseModel) -> bytes:
    return b"data: %b\n\n" % reply.model_dump_json().encode()


async def _read_all(
    server: Server, model_id: str, options: OcrOptions, inputs: Sequence[Input]
) -> AsyncGenerator[DocumentPage]:
    """The pages of all inputs; those of several inputs are numbered through."""
    count = 0
    kinds = [(_is_document(options, document), document) for document in inputs]
    for alone, group in groupby(kinds, key=itemgetter(0)):
        read = _documents if alone else _images
        together = [document for _, document in group]
        async with aclosing(read(server, model_id, options, together)) as pages:
            async for page in pages:
                yield page if len(inputs) == 1 else replace(page, index=count)
                count += 1


def _is_document(options: OcrOptions, document: Input) -> bool:
    """Whether it is read page by page: others are single images, which travel together.

    Raises UnsupportedInputError for what is neither.
    """
    if not isinstance(document.source, bytes):
        return True
    format_name = sniff_document(document.source)
    if format_name is None:
        raise UnsupportedInputError(
            "The document is not a PDF, PNG, JPEG, WebP, TIFF, BMP or GIF file.", document.param
        )
    return format_name in SEVERAL_PAGES or options.pages is not None


async def _documents(
    server: Server, model_id: str, options: OcrOptions, inputs: Sequence[Input]
) -> AsyncGenerator[DocumentPage]:
    for document in inputs:
        wanted = document_request(server, options, document.source, document.param)
        async with aclosing(server.clients.ocr.read_document(model_id, wanted)) as pages:
            async for page in pages:
                yield page


async def _images(
    server: Server, model_id: str, options: OcrOptions, inputs: Sequence[Input]
) -> AsyncGenerator[DocumentPage]:
    images = tuple(image.source for image in inputs if isinstance(image.source, bytes))
    result = await server.clients.ocr.submit(
        model_id, OcrRequest(images, tuple(options.languages or ()))
    )
    for index, page in enumerate(result.pages):
        yield DocumentPage(index, page)


def _endpoint(path: str) -> Endpoint:
    return Endpoint(
        "POST",
        path,
        recognize_text,
        "OCR",
        body=OcrBody,
        response=OcrReply,
        media_types=MEDIA_TYPES,
        reader=read_ocr_call,
        uploads=True,
        streams=True,
    )


ENDPOINTS = (_endpoint("/v1/ocr"), _endpoint("/v1/vision/ocr"))
