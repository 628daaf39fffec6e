"""The pages of one document, read a few at a time: memory does not grow with their number."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from models.documents.opening import Document, SourcePage
from models.types.pages import DocumentPage, Page, PixelArray

Recognize = Callable[[PixelArray], Awaitable[Page]]
T = TypeVar("T")
R = TypeVar("R")


def read_pages(
    document: Document, recognize: Recognize, *, in_flight: int
) -> AsyncGenerator[DocumentPage]:
    """The selected pages, each as soon as it has been read; see `pages_in_order`."""

    async def read(source: SourcePage) -> DocumentPage:
        if isinstance(source.content, Page):
            return DocumentPage(source.index, source.content, source.dpi, text_layer=True)
        page = await recognize(source.content)
        return DocumentPage(source.index, page, source.dpi)

    return pages_in_order(document, document.page, read, in_flight=in_flight)


async def pages_in_order(
    document: Document,
    render: Callable[[int], T],
    work: Callable[[T], Awaitable[R]],
    *,
    in_flight: int,
) -> AsyncGenerator[R]:
    """`work` on what `render`, in a thread, makes of each selected page; results in order.

    At most `in_flight` pages exist between being rendered and being taken. Raises what `render` or
    `work` raise; closing the generator ends both.
    """
    rendering = asyncio.Lock()  # first come, first served, so pages are rendered in order

    async def read(index: int) -> R:
        async with rendering:
            rendered = await asyncio.to_thread(render, index)
        return await work(rendered)

    reading: deque[asyncio.Task[R]] = deque()
    try:
        for index in document.selected:
            reading.append(asyncio.ensure_future(read(index)))
            if len(reading) >= in_flight:
                yield await reading.popleft()
        while reading:
            yield await reading.popleft()
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
