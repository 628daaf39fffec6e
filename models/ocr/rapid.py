"""Text recognition with RapidOCR: PP-OCRv6 detection and recognition on ONNX Runtime.

The weights lie inside the `rapidocr` package, so nothing is downloaded. The text lines of all pages
are recognised side by side, each alone on one thread: on CPUs a line costs the same in a batch and
alone, and all cores have work as long as there are lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from models.batching import BatchListener
from models.ocr.ctc import read_steps
from models.ocr.line_images import batches_by_width, line_input, line_share
from models.ocr.lines import ReadLine
from models.ocr.orientation import UpsideDown
from models.ocr.rapid_detection import BLANK_LINE, RapidLineFinder, bundled_bytes, load_library
from models.ocr.two_stage import LineNetworks, TwoStageRecognizer
from models.types.pages import PixelArray

_CODES = """
af az br bs ca co cs cy da de en eo es et eu fi fo fr fy ga gd gl hr ht hu id is it ja jv ku la
lb lt lv mi ms mt nl no oc pl pt qu rm ro sk sl sq su sv sw tl to tr yo zh zh-hant
"""
LANGUAGES = frozenset(_CODES.split())
"""PP-OCRv6 small: Latin letters but for Vietnam's, Chinese and Japanese; one network reads all."""


class RapidOcrRecognizer(TwoStageRecognizer):
    """A `TextRecognizer` that starts offline."""

    def __init__(
        self,
        *,
        n_threads: int,
        max_pixels: int = 40_000_000,
        max_queued: int = 256,
        on_batch: BatchListener | None = None,
    ) -> None:
        library = load_library(threads=1)
        library.recognize_txt([BLANK_LINE])  # loads the network, which is then called by itself
        self._network = library.text_rec
        self._readers = ThreadPoolExecutor(n_threads, thread_name_prefix="ocr-lines")
        networks = LineNetworks(
            find=RapidLineFinder(n_threads),
            upside_down=UpsideDown(),
            read=self._read_lines,
            languages=LANGUAGES,
            memory_bytes=bundled_bytes("*.onnx"),
        )
        super().__init__(
            networks,
            n_threads=n_threads,
            max_pixels=max_pixels,
            max_queued=max_queued,
            on_batch=on_batch,
        )

    @property
    def alphabet(self) -> Sequence[str]:
        """The letters it can read; the first stands for none."""
        letters: Sequence[str] = self._network.postprocess_op.character
        return letters

    def close(self) -> None:
        super().close()
        self._readers.shutdown()

    def _read_lines(self, crops: Sequence[PixelArray]) -> list[ReadLine]:
        """Long lines go first, so that the threads end together."""
        widths = {index: width for width, (index,) in batches_by_width(crops, max_pixels=1)}
        lines = self._readers.map(lambda index: self._line(crops[index], widths[index]), widths)
        read = dict(zip(widths, lines, strict=True))
        return [read[index] for index in range(len(crops))]

    def _line(self, crop: PixelArray, width: int) -> ReadLine:
        steps = self._network.session(line_input(crop, width)[np.newaxis])[0]
        return read_steps(steps, self.alphabet, line_share(crop, width))
