"""Requests of several images share batches of pages and get their own pages back."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from models.batching import BatchStats
from models.errors import EngineDeadError, ModelError, OverloadedError, UnsupportedInputError
from models.ocr.page_batches import PageBatches, PageImage
from models.types.pages import OcrRequest, OcrResult, Page

WAIT = 60.0
ERROR = UnsupportedInputError("unreadable", "images")


class Reader:
    """A page as wide as its image has bytes; empty images fail. Waits until opened."""

    def __init__(self, opened: bool = True) -> None:
        self.batches: list[list[bytes]] = []
        self.started = threading.Event()
        self.open = threading.Event()
        if opened:
            self.open.set()

    def __call__(self, pages: list[PageImage]) -> list[Page | ModelError]:
        images = [bytes(page.image) for page in pages]
        self.batches.append(images)
        self.languages = [page.languages for page in pages]
        self.started.set()
        assert self.open.wait(WAIT)
        return [Page(len(image), 1, ()) if image else ERROR for image in images]


def request(*widths: int) -> OcrRequest:
    return OcrRequest(tuple(bytes(width) for width in widths))


def widths(result: OcrResult | ModelError) -> list[int]:
    assert isinstance(result, OcrResult)
    return [page.width for page in result.pages]


def test_each_request_gets_its_own_pages_in_order() -> None:
    batches = PageBatches(Reader(), batch_pages=2, max_queued=100)
    results = batches.submit([request(1, 2, 3), request(), request(4)]).result(WAIT)
    assert [widths(result) for result in results] == [[1, 2, 3], [], [4]]
    batches.close()


def test_every_batch_is_told_of_in_pages() -> None:
    told: list[BatchStats] = []
    batches = PageBatches(Reader(), batch_pages=2, max_queued=100, on_batch=told.append)
    batches.submit([request(1, 2, 3)]).result(WAIT)
    batches.close()
    assert [(batch.items, batch.cost) for batch in told] == [(2, 2), (1, 1)]


def test_pages_carry_the_languages_of_their_request() -> None:
    reader = Reader()
    batches = PageBatches(reader, batch_pages=8, max_queued=100)
    german = OcrRequest((b"a", b"b"), ("de", "en"))
    batches.submit([german, request(1)]).result(WAIT)
    assert reader.languages == [("de", "en"), ("de", "en"), ()]
    batches.close()


def test_a_bad_image_fails_its_request_only() -> None:
    batches = PageBatches(Reader(), batch_pages=8, max_queued=100)
    first, second, third = batches.submit([request(1), request(2, 0, 0), request(3)]).result(WAIT)
    assert widths(first) == [1]
    assert second is ERROR
    assert widths(third) == [3]
    batches.close()


def test_waiting_pages_of_different_calls_share_a_batch() -> None:
    reader = Reader(opened=False)
    batches = PageBatches(reader, batch_pages=8, max_queued=100)
    first = batches.submit([request(1)])
    assert reader.started.wait(WAIT)
    others = [batches.submit([request(width)]) for width in (2, 3, 4)]
    reader.open.set()
    assert [widths(other.result(WAIT)[0]) for other in others] == [[2], [3], [4]]
    assert widths(first.result(WAIT)[0]) == [1]
    assert [len(batch) for batch in reader.batches] == [1, 3]
    batches.close()


def test_cancelling_drops_the_pages_that_wait() -> None:
    reader = Reader(opened=False)
    batches = PageBatches(reader, batch_pages=1, max_queued=100)
    first = batches.submit([request(1)])
    assert reader.started.wait(WAIT)
    second = batches.submit([request(2, 3)])
    assert second.cancel()
    reader.open.set()
    assert widths(first.result(WAIT)[0]) == [1]
    assert widths(batches.submit([request(4)]).result(WAIT)[0]) == [4]
    assert reader.batches == [[bytes(1)], [bytes(4)]]
    with pytest.raises(CancelledError):
        second.result(WAIT)
    batches.close()


def test_a_full_queue_is_overload() -> None:
    reader = Reader(opened=False)
    batches = PageBatches(reader, batch_pages=1, max_queued=2)
    batches.submit([request(1)])
    assert reader.started.wait(WAIT)
    batches.submit([request(1, 1)])
    with pytest.raises(OverloadedError):
        batches.submit([request(1)])
    reader.open.set()
    batches.close()


def test_after_close_nothing_is_taken() -> None:
    batches = PageBatches(Reader(), batch_pages=1, max_queued=2)
    batches.close()
    batches.close()
    with pytest.raises(EngineDeadError):
        batches.submit([request(1)])
