"""Text recognition with RapidOCR: PP-OCRv6 detection and recognition on ONNX Runtime.

The weights lie inside the `rapidocr` package, so nothing is downloaded. The text lines of all pages
are recognised side by side, each alone on one thread: on CPUs a line costs the same in a batch and
alone, and all cores have work as long as there are lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rapidocr

from models.ocr.boxes import Boxes
from models.ocr.ctc import read_steps
from models.ocr.line_images import (
    LINE_HEIGHT,
    LINE_WIDTHS,
    batches_by_width,
    line_input,
    line_share,
)
from models.ocr.lines import ReadLine
from models.ocr.two_stage import LineNetworks, TwoStageRecognizer
from models.types import PixelArray

_CODES = """
af az br bs ca co cs cy da de en eo es et eu fi fo fr fy ga gd gl hr ht hu id is it ja jv ku la
lb lt lv mi ms mt nl no oc pl pt qu rm ro sk sl sq su sv sw tl to tr yo zh zh-hant
"""
LANGUAGES = frozenset(_CODES.split())
"""PP-OCRv6 small: Latin letters but for Vietnam's, Chinese and Japanese; one network reads all."""
NO_BOXES = np.empty((0, 4, 2), dtype=np.float32)


class RapidOcrRecognizer(TwoStageRecognizer):
    """A `TextRecognizer` that starts offline."""

    def __init__(
        self, *, n_threads: int, max_pixels: int = 40_000_000, max_queued: int = 256
    ) -> None:
        self._alone = _load(threads=n_threads)
        self._shared = _load(threads=1)
        self._readers = ThreadPoolExecutor(n_threads, thread_name_prefix="ocr-lines")
        blank = np.full((LINE_HEIGHT, LINE_WIDTHS[0], 3), 255, dtype=np.uint8)
        for library in (self._alone, self._shared):  # networks load when they are first called
            library(blank, use_det=True, use_cls=False, use_rec=False)
        self._shared.cls_and_rotate([blank])
        self._shared.recognize_txt([blank])
        networks = LineNetworks(
            find=self._find,
            upside_down=lambda crops: upside_down(self._shared, crops),
            read=self._read_lines,
            languages=LANGUAGES,
            memory_bytes=bundled_weights_bytes("*.onnx"),
        )
        super().__init__(
            networks, n_threads=n_threads, max_pixels=max_pixels, max_queued=max_queued
        )

    def close(self) -> None:
        super().close()
        self._readers.shutdown()

    def _find(self, page: PixelArray, alone: bool) -> Boxes:
        boxes = (self._alone if alone else self._shared).text_det(page).boxes
        return NO_BOXES if boxes is None else np.asarray(boxes, dtype=np.float32)

    def _read_lines(self, crops: Sequence[PixelArray]) -> list[ReadLine]:
        """Long lines go first, so that the threads end together."""
        widths = {index: width for width, (index,) in batches_by_width(crops, max_pixels=1)}
        lines = self._readers.map(lambda index: self._line(crops[index], widths[index]), widths)
        read = dict(zip(widths, lines, strict=True))
        return [read[index] for index in range(len(crops))]

    def _line(self, crop: PixelArray, width: int) -> ReadLine:
        network = self._shared.text_rec
        steps = network.session(line_input(crop, width)[np.newaxis])[0]
        return read_steps(steps, network.postprocess_op.character, line_share(crop, width))


def upside_down(library: rapidocr.RapidOCR, crops: Sequence[PixelArray]) -> list[bool]:
    """Which lines stand on their head, says RapidOCR's classifier where it is sure."""
    threshold = library.cfg.Cls.cls_thresh
    answers = library.text_cls(list(crops)).cls_res
    return ["180" in label and score > threshold for label, score in answers]


def bundled_weights_bytes(pattern: str) -> int:
    weights = Path(rapidocr.__file__).parent / "models"
    return sum(file.stat().st_size for file in weights.glob(pattern))


def _load(threads: int) -> Any:
    return rapidocr.RapidOCR(
        params={
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
