"""Shared batches of pages: the part of a text recogniser that does not depend on its engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from models.batching import BatchLimits, BatchListener, DynamicBatcher
from models.errors import ModelError
from models.types.pages import OcrRequest, OcrResult, Page, PixelArray

PAGE_SECONDS = 30.0
"""What a page full of text may take on one busy CPU core; pages before it may have been blank."""


@dataclass(frozen=True, slots=True)
class PageImage:
    """One page and the languages that its request names."""

    image: bytes | PixelArray
    languages: tuple[str, ...] = ()


ReadPages = Callable[[list[PageImage]], Sequence[Page | ModelError]]
OcrAnswer = Future[list[OcrResult | ModelError]]


class PageBatches:
    """Turns requests of several images into single pages that share batches, and back.

    `read` gets at most `batch_pages` pages of any requests and returns a page or an error
    for each; it runs on one thread, and so does `on_batch`, which hears of every batch.
    """

    def __init__(
        self,
        read: ReadPages,
        batch_pages: int,
        max_queued: int,
        on_batch: BatchListener | None = None,
    ) -> None:
        limits = BatchLimits(
            batch_cost=batch_pages,
            batch_items=batch_pages,
            queued_cost=max_queued,
            unit_seconds=PAGE_SECONDS,
        )
        self._batcher: DynamicBatcher[PageImage, Page] = DynamicBatcher(
            read, lambda _: 1, limits, on_batch, name="ocr"
        )

    def submit(self, requests: Sequence[OcrRequest]) -> OcrAnswer:
        """See `BatchModel.submit`. The first image that fails decides its request's error."""
        pages = self._batcher.submit(
            [
                PageImage(image, request.languages)
                for request in requests
                for image in request.images
            ]
        )
        counts = [len(request.images) for request in requests]
        answer: OcrAnswer = Future()
        answer.add_done_callback(lambda done: pages.cancel() if done.cancelled() else None)
        pages.add_done_callback(lambda done: _pass_on(done, answer, counts))
        return answer

    @property
    def alive(self) -> bool:
        return self._batcher.alive

    def close(self) -> None:
        self._batcher.close()


def _pass_on(pages: Future[list[Page | ModelError]], answer: OcrAnswer, counts: list[int]) -> None:
    if pages.cancelled() or not answer.set_running_or_notify_cancel():
        return
    error = pages.exception()
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result([_result(part) for part in _split(pages.result(), counts)])


def _split(pages: list[Page | ModelError], counts: list[int]) -> Iterator[list[Page | ModelError]]:
    start = 0
    for count in counts:
        yield pages[start : start + count]
        start += count


def _result(parts: list[Page | ModelError]) -> OcrResult | ModelError:
    pages: list[Page] = []
    for part in parts:
        if isinstance(part, ModelError):
            return part
        pages.append(part)
    return OcrResult(tuple(pages))
