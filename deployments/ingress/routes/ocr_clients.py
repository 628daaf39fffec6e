"""OCR in the shapes of document loaders: LiteParse's POST /ocr, Open WebUI's PUT /process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from pydantic import RootModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.ingress.document_inputs import find_input
from deployments.ingress.document_reading import read_pages, text_reader
from deployments.ingress.errors import error_body
from deployments.ingress.routes.ocr_request import MEDIA_TYPES, OcrBody, OcrCall, read_ocr_call
from deployments.ingress.schemas import ErrorReply, Reply
from deployments.ingress.server import Endpoint, Server
from models.page_formats.geometry import box_of
from models.page_formats.markdown import page_markdown
from models.types.pages import DocumentPage

NO_TEXT = "No extractable text was found in the document."
"""Open WebUI looks for the first three words and then tries its own loader."""


class ParsedLine(Reply):
    text: str
    bbox: tuple[float, float, float, float]
    confidence: float
    polygon: list[tuple[float, float]]


class ParsedReply(Reply):
    """Lines in reading order; left, top, right, bottom in pixels."""

    results: list[ParsedLine]


class LoadedPage(Reply):
    """A document of LangChain: markdown and where it is from."""

    page_content: str
    metadata: dict[str, Any]


class LoadedPages(RootModel[list[LoadedPage]]):
    """Of one file, in order."""


async def parse(server: Server, request: Request, call: OcrCall) -> ParsedReply:
    """Read the lines of an image."""
    pages = await _read(server, request, call)
    lines = [line for page in pages for line in page.page.lines]
    return ParsedReply(
        results=[
            ParsedLine(
                text=line.text,
                bbox=tuple(box_of(line.polygon)),
                confidence=line.confidence,
                polygon=list(line.polygon),
            )
            for line in lines
        ]
    )


async def load(server: Server, request: Request, call: OcrCall) -> Response:
    """Read a file as a list of pages of markdown."""
    pages = await _read(server, request, call)
    if not any(page.page.lines for page in pages):
        body = error_body(NO_TEXT, "invalid_request_error", None, "no_text")
        return JSONResponse({**body, "detail": NO_TEXT}, 422)
    name = request.headers.get("x-filename", "")[:256]
    return JSONResponse(await asyncio.to_thread(_loaded, pages, name))


def _loaded(pages: Sequence[DocumentPage], name: str) -> list[dict[str, Any]]:
    loaded = [
        LoadedPage(
            page_content=page_markdown(page.page),
            metadata={"source": name, "page": page.index, "total_pages": len(pages)},
        )
        for page in pages
    ]
    return [page.model_dump() for page in loaded]


async def _read(server: Server, request: Request, call: OcrCall) -> list[DocumentPage]:
    spec = text_reader(server, call.options.model)
    inputs = [await find_input(server, request, reference) for reference in call.references]
    async with aclosing(read_pages(server, spec.id, call.options, inputs)) as pages:
        return [page async for page in pages]


ENDPOINTS = (
    Endpoint(
        "POST",
        "/ocr",
        parse,
        "OCR",
        body=OcrBody,
        response=ParsedReply,
        media_types=MEDIA_TYPES,
        reader=read_ocr_call,
        uploads=True,
    ),
    Endpoint(
        "PUT",
        "/process",
        load,
        "OCR",
        body=OcrBody,
        response=LoadedPages,
        media_types=MEDIA_TYPES,
        reader=read_ocr_call,
        uploads=True,
        also=((422, ErrorReply),),
    ),
)
