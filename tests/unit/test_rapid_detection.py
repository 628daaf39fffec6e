"""What loading RapidOCR's detector costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rapidocr.ch_ppocr_det.utils import DetPreProcess

from models.ocr import rapid_detection
from models.ocr.rapid_detection import RapidLineFinder
from models.types.pages import PixelArray


class RecordingLibrary:
    def __init__(self, pages: list[PixelArray]) -> None:
        self.pages = pages

    def __call__(self, page: PixelArray, **steps: bool) -> None:
        assert steps == {"use_det": True, "use_cls": False, "use_rec": False}
        self.pages.append(page)


def test_loading_looks_at_the_smallest_page_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flat one would be scaled to millions of pixels before detection sees it."""
    pages: list[PixelArray] = []

    def load(**_: Any) -> RecordingLibrary:
        return RecordingLibrary(pages)

    monkeypatch.setattr(rapid_detection, "load_library", load)
    RapidLineFinder(n_threads=2)
    scaled = DetPreProcess(736, "min", [0.5] * 3, [0.5] * 3)
    shapes = [np.shape(scaled(page)) for page in pages]
    assert shapes == [(1, 3, 736, 736)] * 2
