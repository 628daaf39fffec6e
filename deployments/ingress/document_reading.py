"""Reading the pages of what a request sends: documents page by page, single images together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Annotated

from pydantic import Field

from config.catalog import ModelSpec
from deployments.ingress.document_inputs import Input
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.schemas import LenientBody, ModelName
from deployments.ingress.server import Server
from models.documents.selection import parse_pages
from models.errors import InvalidInputError, UnsupportedInputError, UnsupportedTaskError
from models.file_formats import sniff_document
from models.types.pages import DocumentPage, DocumentRequest, OcrRequest, StoredFile

SEVERAL_PAGES = {"PDF", "TIFF"}
Pages = Annotated[list[int], Field(min_length=1, max_length=10_000, fail_fast=True)]
PagesText = Annotated[str, Field(max_length=4096)]


Language = Annotated[str, Field(min_length=1, max_length=32)]
Languages = Annotated[list[Language], Field(max_length=64, fail_fast=True)]


class ReadOptions(KeepAliveFields, LenientBody):
    """How to read, whatever the document is."""

    model: ModelName | None = None
    pages: Pages | PagesText | None = None
    """Page numbers from 0, or ranges as in "0-5"."""
    dpi: Annotated[int, Field(ge=36)] | None = None
    """Resolution of rendered pages."""
    force_ocr: bool = False
    """Recognise also pages that bring their text along."""
    password: Annotated[str, Field(max_length=256)] | None = Field(None, repr=False)
    languages: Languages | None = None


def text_reader(server: Server, name: str | None) -> ModelSpec:
    """The OCR model of that name, or the first one.

    Document models do not read text: they say what is asked about a document. Raises
    ModelNotFoundError, UnsupportedTaskError.
    """
    if name is None:
        specs = server.catalog.of_task("ocr")
        name = next((spec.id for spec in specs if not spec.reads_documents), None)
    spec = server.model(name, "ocr")
    if spec.reads_documents:
        message = f"The model '{spec.id}' does not read text: ask it at /v1/documents/extract."
        raise UnsupportedTaskError(message, "model")
    return spec


def document_request(
    server: Server, options: ReadOptions, source: bytes | StoredFile, param: str
) -> DocumentRequest:
    """Raises InvalidInputError for pages or a resolution that cannot be had."""
    settings = server.config.documents
    if options.dpi is not None and options.dpi > settings.max_dpi:
        raise InvalidInputError(f"'dpi' is at most {settings.max_dpi}.", "dpi")
    return DocumentRequest(
        source=source,
        dpi=options.dpi or settings.dpi,
        pages=None if options.pages is None else parse_pages(options.pages),
        force_ocr=options.force_ocr,
        password=options.password,
        languages=tuple(options.languages or ()),
        param=param,
    )


async def read_pages(
    server: Server, model_id: str, options: ReadOptions, inputs: Sequence[Input]
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


def _is_document(options: ReadOptions, document: Input) -> bool:
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
    server: Server, model_id: str, options: ReadOptions, inputs: Sequence[Input]
) -> AsyncGenerator[DocumentPage]:
    for document in inputs:
        wanted = document_request(server, options, document.source, document.param)
        async with aclosing(server.clients.ocr.read_document(model_id, wanted)) as pages:
            async for page in pages:
                yield page


async def _images(
    server: Server, model_id: str, options: ReadOptions, inputs: Sequence[Input]
) -> AsyncGenerator[DocumentPage]:
    images = tuple(image.source for image in inputs if isinstance(image.source, bytes))
    result = await server.clients.ocr.submit(
        model_id, OcrRequest(images, tuple(options.languages or ()))
    )
    for index, page in enumerate(result.pages):
        yield DocumentPage(index, page)
