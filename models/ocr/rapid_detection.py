"""Finding lines with RapidOCR's detector, PP-OCRv6 small on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rapidocr

from models.ocr.boxes import Boxes
from models.types.pages import PixelArray

NO_BOXES = np.empty((0, 4, 2), dtype=np.float32)
BLANK_LINE = np.full((48, 320, 3), 255, dtype=np.uint8)
BLANK_PAGE = np.full((320, 320, 3), 255, dtype=np.uint8)
"""A square: detection scales the short side to 736 pixels, and a line would become millions."""


class RapidLineFinder:
    """The boxes of text on a BGR page. `alone`: no other page waits, so all threads may help."""

    def __init__(self, n_threads: int) -> None:
        self._alone = load_library(threads=n_threads)
        self._shared = load_library(threads=1)
        for library in (self._alone, self._shared):  # networks load when they are first called
            library(BLANK_PAGE, use_det=True, use_cls=False, use_rec=False)

    @property
    def memory_bytes(self) -> int:
        return bundled_bytes("*_det_*.onnx")

    def __call__(self, page: PixelArray, alone: bool) -> Boxes:
        boxes = (self._alone if alone else self._shared).text_det(page).boxes
        return NO_BOXES if boxes is None else np.asarray(boxes, dtype=np.float32)


def load_library(threads: int) -> Any:
    """RapidOCR with its bundled weights, none of them loaded yet."""
    return rapidocr.RapidOCR(
        params={
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


def bundled_bytes(pattern: str) -> int:
    """Size of the files of weights inside the `rapidocr` package that match."""
    weights = Path(rapidocr.__file__).parent / "models"
    return sum(file.stat().st_size for file in weights.glob(pattern))
