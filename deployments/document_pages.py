"""The pages of one document, read a few at a time: memory does not grow with their number."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

from models.documents.opening import Document, SourcePage
from models.types import DocumentPage, Page, PixelArray

Recognize = Callable[[PixelArray], Awaitable[Page]]


async def read_pages(
    document: Document, recognize: Recognize, *, in_flight: int
) -> AsyncGenerator[DocumentPage]:
    """The selected pages in order, each as soon as it has been read.

    At most `in_flight` pages exist between being rendered and being taken. Raises what rendering or
    recognition raise; closing the generator ends both.
    """
    rendering = asyncio.Lock()  # first come, first served, so pages are rendered in order

    async def read(index: int) -> DocumentPage:
        async with rendering:
            source = await asyncio.to_thread(document.page, index)
        return await _read(source, recognize)

    reading: deque[asyncio.Task[DocumentPage]] = deque()
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


async def _read(source: SourcePage, recognize: Recognize) -> DocumentPage:
    if isinstance(source.content, Page):
        return DocumentPage(source.index, source.content, source.dpi, text_layer=True)
    page = await recognize(source.content)
    return DocumentPage(source.index, page, source.dpi)
