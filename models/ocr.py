"""Text recognition with RapidOCR: PP-OCRv6 detection and recognition on ONNX Runtime.

The weights lie inside the `rapidocr` package, so nothing is downloaded. Pages of a batch are
detected side by side, then the text lines of all pages are recognised side by side, each line alone
on one thread: on CPUs a batch of lines costs its padding and gains nothing, and a line read alone
cannot depend on who else sent a page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import rapidocr

from models.errors import ModelError
from models.images import ImageDecoder, ImageLimits, PixelArray
from models.page_batches import OcrAnswer, PageBatches
from models.reading_order import Polygon, reading_lines
from models.types import OcrRequest, Page, TextLine

MAX_SIDE = 2000
"""Larger pages are scaled down for detection (RapidOCR's own default)."""
MAX_ASPECT = 8.0
"""Longer pages are padded: detection scales the short side to 736 pixels, whatever that costs."""
MIN_SIDE = 30
LINE_HEIGHT = 48
LINE_WIDTHS = (320, 3200)
"""Narrow lines are padded to the first, as in training; longer ones squeezed into the second."""
LINE_WIDTH_STEP = 32
MIN_CONFIDENCE = 0.5

Box = npt.NDArray[np.float32]
Pair = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _DetectedPage:
    """A page before recognition; `polygons` are in pixels of the original image."""

    width: int
    height: int
    polygons: list[Polygon]
    crops: list[PixelArray]


class RapidOcrRecognizer:
    """A `TextRecognizer`. `n_threads` is the CPU share; `max_queued` counts waiting pages.

    Sizes and positions refer to the image as viewers show it, its EXIF orientation applied.
    """

    def __init__(
        self, *, n_threads: int, max_pixels: int = 40_000_000, max_queued: int = 256
    ) -> None:
        self._decoder = ImageDecoder(ImageLimits(max_pixels=max_pixels), workers=n_threads)
        self._detector = _load(threads=n_threads)
        self._recognizer = _load(threads=1)
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="ocr")
        self._warm_up()
        self._batches = PageBatches(self._read, max(4, 2 * n_threads), max_queued)

    @property
    def memory_bytes(self) -> int:
        weights = Path(rapidocr.__file__).parent / "models"
        return sum(file.stat().st_size for file in weights.glob("*.onnx"))

    @property
    def alive(self) -> bool:
        return self._batches.alive

    def submit(self, requests: Sequence[OcrRequest]) -> OcrAnswer:
        return self._batches.submit(requests)

    def close(self) -> None:
        self._batches.close()
        self._threads.shutdown()
        self._decoder.close()

    def _warm_up(self) -> None:
        """Load all three networks now: RapidOCR would load them on the first page."""
        blank = np.full((LINE_HEIGHT, LINE_WIDTHS[0], 3), 255, dtype=np.uint8)
        self._detector(blank, use_det=True, use_cls=False, use_rec=False)
        self._recognizer.cls_and_rotate([blank])
        self._recognizer.recognize_txt([blank])

    def _read(self, images: list[bytes]) -> list[Page | ModelError]:
        pages = list(self._threads.map(self._detect, images))
        found = [page for page in pages if isinstance(page, _DetectedPage)]
        texts = iter(self._recognize([crop for page in found for crop in page.crops]))
        return [page if isinstance(page, ModelError) else _page(page, texts) for page in pages]

    def _detect(self, image: bytes) -> _DetectedPage | ModelError:
        try:
            pixels = self._decoder.decode(image)
        except ModelError as error:
            return error
        height, width = pixels.shape[:2]
        prepared, scale, origin = _prepare(np.ascontiguousarray(pixels[:, :, ::-1]))
        boxes = self._detector.text_det(prepared).boxes
        if boxes is None:
            return _DetectedPage(width, height, [], [])
        crops = self._detector.crop_text_regions(prepared, boxes)
        upright, _ = self._recognizer.cls_and_rotate(crops)
        polygons = [_polygon((box - origin) / scale, width, height) for box in boxes]
        return _DetectedPage(width, height, polygons, upright)

    def _recognize(self, crops: list[PixelArray]) -> list[tuple[str, float]]:
        """Text and confidence of each line. Long lines go first, so that threads end together."""
        order = sorted(range(len(crops)), key=lambda index: -_line_width(crops[index]))
        lines = self._threads.map(self._line, [crops[index] for index in order])
        read = dict(zip(order, lines, strict=True))
        return [read[index] for index in range(len(crops))]

    def _line(self, crop: PixelArray) -> tuple[str, float]:
        network = self._recognizer.text_rec
        ratio = _line_width(crop) / LINE_HEIGHT
        batch = network.resize_norm_img(crop, ratio)[np.newaxis]
        lines, _ = network.postprocess_op(
            network.session(batch), False, wh_ratio_list=[ratio], max_wh_ratio=ratio
        )
        text, confidence = lines[0]
        return str(text), float(confidence)


def _load(threads: int) -> rapidocr.RapidOCR:
    return rapidocr.RapidOCR(
        params={
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


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


def _line_width(crop: PixelArray) -> int:
    """Pixels a line takes at LINE_HEIGHT, in steps, so that few shapes exist."""
    narrowest, widest = LINE_WIDTHS
    aspect: float = crop.shape[1] / crop.shape[0]
    steps = math.ceil(LINE_HEIGHT * aspect / LINE_WIDTH_STEP)
    return min(widest, max(narrowest, steps * LINE_WIDTH_STEP))


def _polygon(box: Box, width: int, height: int) -> Polygon:
    xs = np.clip(box[:, 0], 0, width).tolist()
    ys = np.clip(box[:, 1], 0, height).tolist()
    return (xs[0], ys[0]), (xs[1], ys[1]), (xs[2], ys[2]), (xs[3], ys[3])


def _page(page: _DetectedPage, texts: Iterator[tuple[str, float]]) -> Page:
    read = list(islice(texts, len(page.polygons)))
    lines = [
        TextLine(text.strip(), confidence, polygon)
        for polygon, (text, confidence) in zip(page.polygons, read, strict=True)
        if text.strip() and confidence >= MIN_CONFIDENCE
    ]
    ordered = [
        replace(lines[index], continues=position > 0)
        for printed in reading_lines([line.polygon for line in lines])
        for position, index in enumerate(printed)
    ]
    return Page(page.width, page.height, tuple(ordered))
