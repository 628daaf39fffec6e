"""Pages of a document are read a few at a time, in order, and not at all once nobody wants them."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import numpy as np
import pytest

from deployments.document_pages import read_pages
from models.documents.opening import SourcePage
from models.errors import UnsupportedInputError
from models.types.pages import DocumentPage, Page, PixelArray

IN_FLIGHT = 3
WAIT = 60.0


class Pixels(np.ndarray):  # type: ignore[type-arg]
    """An array that can be watched."""


class Rendered:
    """A document of many pages; knows how many of them are alive."""

    def __init__(self, count: int, *, own_text: frozenset[int] = frozenset()) -> None:
        self.selected = list(range(count))
        self.own_text = own_text
        self.rendered: list[int] = []
        self.alive = 0
        self.most_alive = 0
        self._lock = threading.Lock()
        self._busy = False

    def page(self, index: int) -> SourcePage:
        assert not self._busy, "one thread at a time"
        self._busy = True
        self.rendered.append(index)
        if index in self.own_text:
            self._busy = False
            return SourcePage(index, Page(1, 1, ()), 72)
        pixels = np.full((4, index + 1, 3), 255, np.uint8).view(Pixels)
        with self._lock:
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(pixels, self._gone)
        self._busy = False
        return SourcePage(index, pixels, 72)

    picture = page

    def _gone(self) -> None:
        with self._lock:
            self.alive -= 1

    def close(self) -> None:
        pass


async def recognize(pixels: PixelArray) -> Page:
    await asyncio.sleep(0)
    return Page(pixels.shape[1], pixels.shape[0], ())


def reading(document: Rendered) -> AsyncGenerator[DocumentPage]:
    return read_pages(document, recognize, in_flight=IN_FLIGHT)


async def others_have_run() -> None:
    """Return after threads and tasks had many turns."""
    for _ in range(50):
        await asyncio.to_thread(bool)


async def until(condition: Callable[[], bool]) -> None:
    """Return when it is met and what goes beyond it would have happened, too."""
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0)
    await others_have_run()


async def test_thirty_pages_are_read_with_the_memory_of_a_few() -> None:
    document = Rendered(30, own_text=frozenset({4, 5}))
    pages = []
    async for page in reading(document):
        pages.append(page)
        await others_have_run()
    gc.collect()
    assert [page.index for page in pages] == list(range(30))
    assert [page.page.width for page in pages if not page.text_layer] == [
        index + 1 for index in range(30) if index not in (4, 5)
    ]
    assert [page.index for page in pages if page.text_layer] == [4, 5]
    assert document.rendered == list(range(30))
    assert document.most_alive <= IN_FLIGHT
    assert document.alive == 0


async def test_pages_wait_unrendered_while_recognition_is_busy() -> None:
    document = Rendered(30)
    busy = asyncio.Event()

    async def slow(pixels: PixelArray) -> Page:
        await busy.wait()
        return Page(pixels.shape[1], 4, ())

    pages = read_pages(document, slow, in_flight=IN_FLIGHT)
    reader = asyncio.ensure_future(anext(pages))
    await until(lambda: document.alive == IN_FLIGHT)
    assert len(document.rendered) == document.alive == IN_FLIGHT
    busy.set()
    assert (await reader).index == 0
    await pages.aclose()


async def test_nothing_is_rendered_ahead_of_a_reader_who_waits() -> None:
    document = Rendered(30)
    async with aclosing(reading(document)) as pages:
        await anext(pages)
        await until(lambda: len(document.rendered) >= IN_FLIGHT)
        assert len(document.rendered) == IN_FLIGHT


async def test_the_first_page_does_not_wait_for_the_second() -> None:
    document = Rendered(2)
    second = asyncio.Event()

    async def slow(pixels: PixelArray) -> Page:
        if pixels.shape[1] == 2:
            await second.wait()
        return Page(pixels.shape[1], 4, ())

    async with aclosing(read_pages(document, slow, in_flight=IN_FLIGHT)) as pages:
        # Of the two pages that are read at the same time only the first can be finished.
        assert (await asyncio.wait_for(anext(pages), WAIT)).index == 0
        second.set()
        assert (await anext(pages)).index == 1


async def test_a_reader_who_leaves_cancels_what_is_recognised() -> None:
    document = Rendered(30)
    started, cancelled = asyncio.Event(), []

    async def never(pixels: PixelArray) -> Page:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(pixels.shape[1])
            raise
        raise AssertionError

    pages = read_pages(document, never, in_flight=IN_FLIGHT)
    reader = asyncio.ensure_future(anext(pages))
    await asyncio.wait_for(started.wait(), WAIT)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await others_have_run()
    assert 1 in cancelled
    assert len(document.rendered) <= IN_FLIGHT


async def test_a_page_that_fails_ends_the_document_after_those_before_it() -> None:
    document = Rendered(10)

    async def second_fails(pixels: PixelArray) -> Page:
        if pixels.shape[1] == 2:
            raise UnsupportedInputError("unreadable", "document")
        return Page(pixels.shape[1], 4, ())

    pages = read_pages(document, second_fails, in_flight=IN_FLIGHT)
    assert (await anext(pages)).index == 0
    with pytest.raises(UnsupportedInputError):
        await anext(pages)
    assert len(document.rendered) <= IN_FLIGHT + 1
