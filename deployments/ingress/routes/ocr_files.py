"""What POST /v1/ocr answers with `format`: one file of all pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from starlette.responses import Response

from deployments.ingress.document_inputs import Input
from deployments.ingress.document_reading import ReadOptions, document_request
from deployments.ingress.routes.ocr_output import FileFormat
from deployments.ingress.server import Server
from models.page_formats.alto import alto
from models.page_formats.hocr import hocr
from models.page_formats.markdown import page_markdown
from models.page_formats.pdf import SearchablePdf
from models.page_formats.tsv import tsv
from models.types.pages import DocumentPage

MEDIA_TYPES: dict[FileFormat, str] = {
    "text": "text/plain; charset=utf-8",
    "markdown": "text/markdown; charset=utf-8",
    "hocr": "application/xhtml+xml; charset=utf-8",
    "alto": "application/xml; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "pdf": "application/pdf",
}
FORM_FEED = "\n\f"
"""Between the pages of plain text, as tesseract and pdftotext have it."""


async def file_reply(
    server: Server,
    wanted: FileFormat,
    model_id: str,
    options: ReadOptions,
    inputs: Sequence[Input],
    pages: AsyncGenerator[DocumentPage],
) -> Response:
    """All pages in one file. Raises ModelError."""
    async with aclosing(pages):
        read = [page async for page in pages]
    if wanted == "pdf":
        content = await _pdf(server, options, inputs, read)
    else:
        content = (await asyncio.to_thread(_written, wanted, read, model_id)).encode()
    return Response(content, media_type=None, headers={"content-type": MEDIA_TYPES[wanted]})


def _written(wanted: FileFormat, pages: Sequence[DocumentPage], model_id: str) -> str:
    if wanted == "hocr":
        return hocr(pages, model_id)
    if wanted == "alto":
        return alto(pages, model_id)
    if wanted == "tsv":
        return tsv(pages)
    if wanted == "markdown":
        return "\n\n".join(page_markdown(page.page) for page in pages) + "\n"
    return FORM_FEED.join(page.page.text for page in pages) + "\n"


async def _pdf(
    server: Server,
    options: ReadOptions,
    inputs: Sequence[Input],
    pages: Sequence[DocumentPage],
) -> bytes:
    """Pages with their pictures, which are rendered once more instead of being kept in memory.

    Not while the pages are read: a request that has one document open must not wait for another.
    """
    pdf = SearchablePdf()
    following = iter(pages)
    for document in inputs:
        wanted = document_request(server, options, document.source, document.param)
        async with aclosing(server.clients.ocr.page_images(wanted)) as pictures:
            async for _, picture in pictures:
                await asyncio.to_thread(pdf.add, next(following), picture)
    return await asyncio.to_thread(pdf.finish)
