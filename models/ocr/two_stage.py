"""Recognition in two steps: find the lines of every page, then read the lines of all pages.

Pages of a batch are searched side by side, each on one thread. Then their lines go to the reader
together, so that lines of different pages and requests can share its batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import numpy.typing as npt

from models.batching import BatchListener
from models.errors import ModelError
from models.ocr.boxes import Boxes, joined
from models.ocr.languages import check_languages
from models.ocr.lines import Corners, FoundLine, ReadLine, cut_out, page_of
from models.ocr.page_batches import PageImage
from models.ocr.page_recognizer import PageRecognizer
from models.ocr.reading_order import Polygon
from models.types.pages import Page, PixelArray

MAX_SIDE = 2000
"""Larger pages are scaled down for detection (RapidOCR's own default)."""
MAX_ASPECT = 8.0
"""Longer pages are padded: detection scales the short side to 736 pixels, whatever that costs."""
MIN_SIDE = 30
MIN_CONFIDENCE = 0.5

Pair = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LineNetworks:
    """What an engine brings. Pixels are BGR, as PP-OCR was trained.

    `find` gives the boxes of text on a page; it is called from several threads, `alone` saying
    that there is one page only. `upside_down` tells which of some crops seem to be. `read`
    gets all lines of a batch of pages. `languages` are the canonical codes that it reads; None:
    that is not known, and any may be named.
    """

    find: Callable[[PixelArray, bool], Boxes]
    upside_down: Callable[[Sequence[PixelArray]], Sequence[bool]]
    read: Callable[[Sequence[PixelArray]], Sequence[ReadLine]]
    languages: frozenset[str] | None
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class _FoundPage:
    """`lines`: the ways in which each may be read, of which the surest will count."""

    width: int
    height: int
    lines: list[tuple[FoundLine, ...]]


class TwoStageRecognizer(PageRecognizer):
    """A `TextRecognizer`. `n_threads` is the CPU share; `max_queued` counts waiting pages.

    Sizes and positions refer to the image as viewers show it, its EXIF orientation applied.
    """

    def __init__(
        self,
        networks: LineNetworks,
        *,
        n_threads: int,
        max_pixels: int = 40_000_000,
        max_queued: int = 256,
        on_batch: BatchListener | None = None,
        min_confidence: float = MIN_CONFIDENCE,
    ) -> None:
        self._networks = networks
        self._min_confidence = min_confidence
        super().__init__(
            n_threads=n_threads,
            max_pixels=max_pixels,
            max_queued=max_queued,
            batch_pages=max(4, 2 * n_threads),
            on_batch=on_batch,
            memory_bytes=networks.memory_bytes,
        )

    def _read(self, images: list[PageImage]) -> list[Page | ModelError]:
        alone = len(images) == 1
        pages = list(self._threads.map(lambda image: self._found(image, alone), images))
        found = [page for page in pages if isinstance(page, _FoundPage)]
        crops = [way.crop for page in found for ways in page.lines for way in ways]
        read = iter(self._networks.read(crops))
        return [page if isinstance(page, ModelError) else self._page(page, read) for page in pages]

    def _page(self, page: _FoundPage, read: Iterator[ReadLine]) -> Page:
        chosen = [
            max(zip(ways, islice(read, len(ways)), strict=True), key=lambda way: way[1].confidence)
            for ways in page.lines
        ]
        lines, texts = [line for line, _ in chosen], [text for _, text in chosen]
        return page_of(page.width, page.height, lines, texts, self._min_confidence)

    def _found(self, page: PageImage, alone: bool) -> _FoundPage | ModelError:
        try:
            if self._networks.languages is not None:
                check_languages(page.languages, self._networks.languages)
            pixels = self._decoder.pixels(page.image)
        except ModelError as error:
            return error
        height, width = pixels.shape[:2]
        prepared, scale, origin = _prepare(np.ascontiguousarray(pixels[:, :, ::-1]))
        boxes = joined(self._networks.find(prepared, alone))
        lines = []
        for box in boxes:
            crop, turn = cut_out(prepared, box)
            lines.append(FoundLine(_polygon((box - origin) / scale, width, height), crop, turn))
        return _FoundPage(width, height, self._ways(lines))

    def _ways(self, lines: list[FoundLine]) -> list[tuple[FoundLine, ...]]:
        """Those that seem to stand on their head are read both ways: the classifier errs."""
        if not lines:
            return []
        turned = self._networks.upside_down([line.crop for line in lines])
        return [
            (line.turned(), line) if doubtful else (line,)
            for line, doubtful in zip(lines, turned, strict=True)
        ]


def _prepare(page: PixelArray) -> tuple[PixelArray, Pair, Pair]:
    """The page as detection gets it, its scale by axis, and where its top left corner went."""
    original = np.array(page.shape[1::-1], dtype=np.float32)
    shrink = min(1.0, MAX_SIDE / max(page.shape[:2]))
    width, height = (max(1, round(side * shrink)) for side in page.shape[1::-1])
    if shrink < 1:
        page = np.asarray(cv2.resize(page, (width, height)), dtype=np.uint8)
    x, y = _padding(width, height), _padding(height, width)
    if x or y:
        page = np.asarray(cv2.copyMakeBorder(page, y, y, x, x, cv2.BORDER_CONSTANT), np.uint8)
    scale = np.array([width, height], dtype=np.float32) / original
    return page, scale, np.array([x, y], dtype=np.float32)


def _padding(side: int, other: int) -> int:
    """Pixels on each end of `side`, as RapidOCR pads flat images."""
    shortest = max(math.ceil(other / MAX_ASPECT), MIN_SIDE)
    return 0 if side > shortest else shortest - side // 2


def _polygon(box: Corners, width: int, height: int) -> Polygon:
    xs = np.clip(box[:, 0], 0, width).tolist()
    ys = np.clip(box[:, 1], 0, height).tolist()
    return (xs[0], ys[0]), (xs[1], ys[1]), (xs[2], ys[2]), (xs[3], ys[3])
