"""Which lines stand on their head: RapidOCR's small classifier, whose weights it brings along."""

from __future__ import annotations

from collections.abc import Sequence

from models.ocr.rapid_detection import BLANK_LINE, bundled_bytes, load_library
from models.types.pages import PixelArray


class UpsideDown:
    """Says for each BGR crop whether it seems so. It may be called from several threads."""

    def __init__(self) -> None:
        self._library = load_library(threads=1)
        self._library.cls_and_rotate([BLANK_LINE])

    @property
    def memory_bytes(self) -> int:
        return bundled_bytes("*_cls_*.onnx")

    def __call__(self, crops: Sequence[PixelArray]) -> list[bool]:
        threshold = self._library.cfg.Cls.cls_thresh
        answers = self._library.text_cls(list(crops)).cls_res
        return ["180" in label and score > threshold for label, score in answers]
