"""A text recogniser without weights: it "reads" the box around everything darker than paper."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models.batching import BatchListener
from models.errors import ModelError
from models.ocr.page_batches import PageImage
from models.ocr.page_recognizer import PageRecognizer
from models.toy.faults import Faults
from models.types.pages import Page, PixelArray, TextLine

PAPER = 200


class ToyTextRecognizer(PageRecognizer):
    """A deterministic `TextRecognizer`: one line per page, whose text names its size.

    Images go through the same decoder as with a real engine; a blank page has no lines. A page has
    the fault that its language names, see `Faults`.
    """

    def __init__(
        self,
        *,
        max_pixels: int = 40_000_000,
        max_queued: int = 256,
        on_batch: BatchListener | None = None,
        faults: Mapping[str, str | bool] | None = None,
    ) -> None:
        self._faults = Faults.of(faults)
        self._faults.at_load()
        super().__init__(
            n_threads=1,
            max_pixels=max_pixels,
            max_queued=max_queued,
            batch_pages=4,
            on_batch=on_batch,
        )

    def _read(self, pages: list[PageImage]) -> list[Page | ModelError]:
        return [self._page(page) for page in pages]

    def _page(self, page: PageImage) -> Page | ModelError:
        self._faults.in_text(" ".join(page.languages))
        try:
            pixels = self._decoder.pixels(page.image)
        except ModelError as error:
            return error
        height, width = pixels.shape[:2]
        return Page(width, height, _ink(pixels))


def _ink(pixels: PixelArray) -> tuple[TextLine, ...]:
    rows, columns = np.nonzero(pixels.min(axis=2) < PAPER)
    if not len(rows):
        return ()
    left, right = float(columns.min()), float(columns.max() + 1)
    top, bottom = float(rows.min()), float(rows.max() + 1)
    text = f"ink of {right - left:.0f} x {bottom - top:.0f} pixels"
    return (TextLine(text, 1.0, ((left, top), (right, top), (right, bottom), (left, bottom))),)
