"""PP-PicoDet for layout (trained on CDLA), as PaddlePaddle exports it to ONNX.

The network answers on four grids of anchor points, 8, 16, 32 and 64 pixels apart: for each point
the probability of every label, and for each side of the box a distribution over eight distances,
whose mean, in steps of the grid, is the distance (generalised focal loss).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from models.encoders.onnx_session import SESSION_ERRORS
from models.errors import ModelLoadError
from models.types.pages import PixelArray, Region

STRIDES = (8, 16, 32, 64)
BINS = 8
SIDES = 4
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
"""Of ImageNet."""
MIN_SCORE = 0.45
MAX_OVERLAP = 0.5
"""Of the areas that two boxes share and have; the surer one stays."""
MAX_CANDIDATES = 400

Floats = npt.NDArray[np.float32]


class LayoutDetector:
    """Finds the regions of pages. Thread-safe; `n_threads` is the CPU share of one page."""

    def __init__(self, file: Path, n_threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
            labels = self._session.get_modelmeta().custom_metadata_map["character"]
        except (*SESSION_ERRORS, KeyError) as error:
            raise ModelLoadError("The layout model is not a PicoDet graph with labels.") from error
        self._labels: list[str] = labels.split("\n")
        (given,) = self._session.get_inputs()
        self._input = given.name
        self._height, self._width = given.shape[2:]
        self.memory_bytes = file.stat().st_size

    def regions(self, pixels: PixelArray) -> tuple[Region, ...]:
        """In pixels of the page, the surest first."""
        resized = cv2.resize(pixels, (self._width, self._height)).astype(np.float32)
        normal = (resized / 255 - MEAN) / STD
        outputs = self._session.run(None, {self._input: normal.transpose(2, 0, 1)[np.newaxis]})
        scores, boxes = self._decoded(outputs)
        height, width = pixels.shape[:2]
        scale = np.array([width / self._width, height / self._height] * 2, dtype=np.float32)
        limits = np.array([width, height] * 2, dtype=np.float32)
        boxes = np.clip(boxes * scale, 0, limits)
        return tuple(
            Region(self._labels[label], float(scores[point, label]), _box(boxes[point]))
            for point, label in surest(scores, boxes)
        )

    def _decoded(self, outputs: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Scores [points, labels] and boxes [points, 4] of all grids, in pixels of the input."""
        scores = [grid[0] for grid in outputs[: len(STRIDES)]]
        grids = zip(STRIDES, outputs[len(STRIDES) :], strict=True)
        boxes = [boxes_of(stride, grid[0], self._width) for stride, grid in grids]
        return np.concatenate(scores), np.concatenate(boxes)


def boxes_of(stride: int, distances: Floats, width: int) -> Floats:
    """[points, 4] of one grid, from logits [points, sides * bins], row by row of the input."""
    logits = distances.reshape(-1, SIDES, BINS)
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    steps = (weights * np.arange(BINS)).sum(axis=2) / weights.sum(axis=2)
    columns = -(-width // stride)
    points = np.arange(len(logits))
    x, y = (points % columns + 0.5) * stride, (points // columns + 0.5) * stride
    left, top, right, bottom = (steps * stride).T
    boxes = np.stack([x - left, y - top, x + right, y + bottom], axis=1)
    return boxes.astype(np.float32)


def surest(scores: Floats, boxes: Floats) -> list[tuple[int, int]]:
    """(point, label) of the boxes that are sure enough, without those that overlap a surer one."""
    points, labels = np.nonzero(scores >= MIN_SCORE)
    order = np.argsort(-scores[points, labels], kind="stable")[:MAX_CANDIDATES]
    kept: list[tuple[int, int]] = []
    for index in order:
        point, label = int(points[index]), int(labels[index])
        if all(_overlap(boxes[point], boxes[other]) < MAX_OVERLAP for other, _ in kept):
            kept.append((point, label))
    return kept


def _overlap(first: Floats, second: Floats) -> float:
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    areas = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]))
    return shared / max(areas - shared, 1e-6)


def _box(values: Floats) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, values)
    return left, top, right, bottom
