"""A document model's answers about the pages of one document, each as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from deployments.document_pages import Recognize, pages_in_order
from models.base import DocumentModel
from models.documents.opening import Document
from models.errors import ModelError
from models.types.pages import DocumentQuestions, Page, PageAnswers, PageQuestions, PixelArray


@dataclass(frozen=True, slots=True)
class _Rendered:
    index: int
    page: Page | None
    pixels: PixelArray | None


def answer_pages(
    document: Document,
    model: DocumentModel,
    asked: DocumentQuestions,
    recognize: Recognize,
    *,
    in_flight: int,
) -> AsyncGenerator[PageAnswers]:
    """Of the selected pages, in order; see `pages_in_order`.

    Words come from the document itself where it has them, else from `recognize`. Raises ModelError.
    """

    def render(index: int) -> _Rendered:
        read = document.page(index) if model.reads_words else document.picture(index)
        if not isinstance(read.content, Page):
            return _Rendered(index, None, read.content)
        picture = document.picture(index).content if model.sees_pixels else None
        return _Rendered(index, read.content, None if isinstance(picture, Page) else picture)

    async def answer(rendered: _Rendered) -> PageAnswers:
        page, pixels = rendered.page, rendered.pixels
        if model.reads_words and page is None and pixels is not None:
            page = await recognize(pixels)
        question = PageQuestions(asked, page, pixels if model.sees_pixels else None)
        (answers,) = await asyncio.wrap_future(model.submit([question]))
        if isinstance(answers, ModelError):
            raise answers
        return replace(answers, index=rendered.index)

    return pages_in_order(document, render, answer, in_flight=in_flight)
