"""A recogniser that also says what the parts of each page are."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from models.base import TextRecognizer
from models.errors import EngineDeadError, ModelError, OverloadedError
from models.ocr.images import ImageDecoder, ImageLimits
from models.ocr.page_batches import OcrAnswer
from models.types.pages import OcrRequest, OcrResult, PixelArray, Region, TableCell

MARGINS = (4, 0, 12)
"""Pixels around a table that its picture has too. The model's boxes depend on them by chance, so
further ones are tried where the cells of a row lie over each other."""
MAX_OVERLAP = 0.08
"""Of neighbouring cells, on average, as a share of the narrower one."""
AT_ONCE = 32
"""Requests that are decoded, or wait for their lines; more wait before that."""
CLOSED = "The engine has been closed."


class Detector(Protocol):
    memory_bytes: int

    def regions(self, pixels: PixelArray) -> tuple[Region, ...]: ...


class Tables(Protocol):
    memory_bytes: int

    def cells(self, pixels: PixelArray) -> tuple[TableCell, ...]: ...


class LayoutRecognizer:
    """A `TextRecognizer`: the lines of another one, and regions. It closes the other one.

    `tables` finds the cells of what the layout says is a table. Both work while the lines of the
    same page are read.
    """

    def __init__(
        self,
        lines: TextRecognizer,
        detector: Detector,
        tables: Tables | None = None,
        *,
        n_threads: int,
        max_pixels: int = 40_000_000,
        max_queued: int = 256,
    ) -> None:
        self._lines = lines
        self._detector = detector
        self._tables = tables
        self._decoder = ImageDecoder(ImageLimits(max_pixels=max_pixels), workers=n_threads)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="layout")
        self._max_queued = max_queued
        self._waiting = 0
        self._lock = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        tables = self._tables.memory_bytes if self._tables else 0
        return self._lines.memory_bytes + self._detector.memory_bytes + tables

    @property
    def alive(self) -> bool:
        return self._lines.alive

    def submit(self, requests: Sequence[OcrRequest]) -> OcrAnswer:
        pages = sum(len(request.images) for request in requests)
        with self._lock:
            if self._waiting and self._waiting + pages > self._max_queued:
                raise OverloadedError("Too many pages are waiting.")
            self._waiting += pages
        answer: OcrAnswer = Future()
        try:
            work = self._threads.submit(self._answers, list(requests), answer)
        except RuntimeError:
            self._left(pages)
            raise EngineDeadError(CLOSED) from None
        work.add_done_callback(lambda done: self._pass_on(done, answer, pages))
        _cancel_with(answer, work)
        return answer

    def close(self) -> None:
        self._lines.close()
        self._threads.shutdown(cancel_futures=True)
        self._decoder.close()

    def _pass_on(self, work: OcrAnswer, answer: OcrAnswer, pages: int) -> None:
        self._left(pages)
        if not answer.set_running_or_notify_cancel():
            return
        error = EngineDeadError(CLOSED) if work.cancelled() else work.exception()
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(work.result())

    def _left(self, pages: int) -> None:
        with self._lock:
            self._waiting -= pages

    def _answers(
        self, requests: list[OcrRequest], answer: OcrAnswer
    ) -> list[OcrResult | ModelError]:
        decoded = [self._decoded(request) for request in requests]
        good = [request for request in decoded if isinstance(request, OcrRequest)]
        reading = self._lines.submit(good)
        _cancel_with(answer, reading)
        regions = [
            [self._regions(image) for image in request.images if not answer.cancelled()]
            for request in good
        ]
        read = iter(zip(reading.result(), regions, strict=True))
        return [
            request if isinstance(request, ModelError) else _joined(*next(read))
            for request in decoded
        ]

    def _decoded(self, request: OcrRequest) -> OcrRequest | ModelError:
        try:
            return replace(request, images=tuple(map(self._decoder.pixels, request.images)))
        except ModelError as error:
            return error

    def _regions(self, image: bytes | PixelArray) -> tuple[Region, ...]:
        if isinstance(image, bytes):
            return ()
        found = self._detector.regions(image)
        return tuple(self._with_cells(region, image) for region in found)

    def _with_cells(self, region: Region, page: PixelArray) -> Region:
        if self._tables is None or region.label != "table":
            return region
        for margin in MARGINS:
            cells = _cells(self._tables, region, page, margin)
            if cells and overlap(cells) <= MAX_OVERLAP:
                return replace(region, cells=cells)
        return region


def _cells(tables: Tables, region: Region, page: PixelArray, margin: int) -> tuple[TableCell, ...]:
    left, top, right, bottom = map(int, region.box)
    left, top = max(0, left - margin), max(0, top - margin)
    crop = page[top : bottom + margin, left : right + margin]
    if not crop.size:
        return ()
    return tuple(_moved(cell, left, top) for cell in tables.cells(np.ascontiguousarray(crop)))


def overlap(cells: Sequence[TableCell]) -> float:
    """How far cells lie over their neighbours in the same row, on average."""
    pairs = [(one, other) for one, other in pairwise(cells) if one.row == other.row]
    shares = [
        max(0.0, one.box[2] - other.box[0])
        / max(1.0, min(cell.box[2] - cell.box[0] for cell in (one, other)))
        for one, other in pairs
    ]
    return sum(shares) / len(shares) if shares else 0.0


def _moved(cell: TableCell, x: int, y: int) -> TableCell:
    left, top, right, bottom = cell.box
    return replace(cell, box=(left + x, top + y, right + x, bottom + y))


def _joined(
    result: OcrResult | ModelError, regions: Sequence[tuple[Region, ...]]
) -> OcrResult | ModelError:
    if isinstance(result, ModelError):
        return result
    pages = zip(result.pages, regions, strict=True)
    return OcrResult(tuple(replace(page, regions=found) for page, found in pages))


def _cancel_with(answer: OcrAnswer, work: OcrAnswer) -> None:
    """Nobody waits for the work any more once the answer is cancelled."""
    answer.add_done_callback(lambda done: work.cancel() if done.cancelled() else None)
