"""Recognisers around an image-to-text model: of lines that a detector found, or of whole pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.batching import BatchListener
from models.errors import ModelError
from models.ocr.image_to_text import ImageToText
from models.ocr.languages import canonical, check_languages
from models.ocr.lines import ReadLine
from models.ocr.orientation import UpsideDown
from models.ocr.page_batches import PageImage
from models.ocr.page_recognizer import PageRecognizer
from models.ocr.rapid_detection import RapidLineFinder
from models.ocr.two_stage import LineNetworks, TwoStageRecognizer
from models.types.pages import Page, PixelArray, TextLine

PAGES_AT_ONCE = 4


def vision_decoder_recognizer(
    path: Path,
    *,
    n_threads: int,
    languages: Sequence[str] | None = None,
    max_pixels: int = 40_000_000,
    max_queued: int = 256,
    on_batch: BatchListener | None = None,
    **model_options: Any,
) -> VisionLineRecognizer | VisionPageRecognizer:
    """The recogniser that fits what the model in the folder reads.

    `languages` are those it knows; without them a request may name any. Other options are those of
    `ImageToText`.
    """
    model = ImageToText(path, n_threads=n_threads, **model_options)
    known = None if languages is None else frozenset(map(canonical, languages))
    make = VisionLineRecognizer if model.reads == "lines" else VisionPageRecognizer
    return make(
        model,
        known,
        n_threads=n_threads,
        max_pixels=max_pixels,
        max_queued=max_queued,
        on_batch=on_batch,
    )


class VisionLineRecognizer(TwoStageRecognizer):
    """TrOCR and its like: PP-OCR's detector finds the lines of all pages, the model reads them."""

    def __init__(
        self,
        model: ImageToText,
        languages: frozenset[str] | None,
        *,
        n_threads: int,
        max_pixels: int,
        max_queued: int,
        on_batch: BatchListener | None = None,
    ) -> None:
        self._model = model
        finder, upside_down = RapidLineFinder(n_threads), UpsideDown()
        networks = LineNetworks(
            find=finder,
            upside_down=upside_down,
            read=self._read_lines,
            languages=languages,
            memory_bytes=model.memory_bytes + finder.memory_bytes + upside_down.memory_bytes,
        )
        super().__init__(
            networks,
            n_threads=n_threads,
            max_pixels=max_pixels,
            max_queued=max_queued,
            on_batch=on_batch,
            min_confidence=0.0,
        )

    def _read_lines(self, crops: Sequence[PixelArray]) -> list[ReadLine]:
        return self._model.read([np.ascontiguousarray(crop[:, :, ::-1]) for crop in crops])


class VisionPageRecognizer(PageRecognizer):
    """Donut, Nougat and their like: the text of a page, without places.

    Every line has the whole page as its polygon.
    """

    def __init__(
        self,
        model: ImageToText,
        languages: frozenset[str] | None,
        *,
        n_threads: int,
        max_pixels: int,
        max_queued: int,
        on_batch: BatchListener | None = None,
    ) -> None:
        self._model = model
        self._languages = languages
        super().__init__(
            n_threads=n_threads,
            max_pixels=max_pixels,
            max_queued=max_queued,
            on_batch=on_batch,
            batch_pages=PAGES_AT_ONCE,
            memory_bytes=model.memory_bytes,
        )

    def _read(self, pages: list[PageImage]) -> list[Page | ModelError]:
        images = list(self._threads.map(self._pixels, pages))
        good = [image for image in images if not isinstance(image, ModelError)]
        read = iter(self._model.read(good))
        return [
            image if isinstance(image, ModelError) else _whole_page(image, next(read))
            for image in images
        ]

    def _pixels(self, page: PageImage) -> PixelArray | ModelError:
        try:
            if self._languages is not None:
                check_languages(page.languages, self._languages)
            return self._decoder.pixels(page.image)
        except ModelError as error:
            return error


def _whole_page(image: PixelArray, read: ReadLine) -> Page:
    height, width = image.shape[:2]
    right, bottom = float(width), float(height)
    outline = ((0.0, 0.0), (right, 0.0), (right, bottom), (0.0, bottom))
    texts = [text.strip() for text in read.text.split("\n") if text.strip()]
    return Page(width, height, tuple(TextLine(text, read.confidence, outline) for text in texts))
