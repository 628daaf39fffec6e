"""Crops of text lines as PP-OCR's recognition network takes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import cv2
import numpy as np
import numpy.typing as npt

from models.types.pages import PixelArray

LINE_HEIGHT = 48
LINE_WIDTHS = (96, 3200)
"""Narrow lines are padded to the first, longer ones squeezed into the second.

Upstream pads to 320, which costs short lines (numbers in tables, items of a receipt) three times
their time; of 160 rendered short lines it read 136 exactly, and 139 with this padding.
"""
LINE_WIDTH_STEP = 32


def line_width(crop: PixelArray) -> int:
    """Pixels a line takes at LINE_HEIGHT, in steps, so that few shapes exist."""
    narrowest, widest = LINE_WIDTHS
    height, width = crop.shape[:2]
    steps = math.ceil(LINE_HEIGHT * width / height / LINE_WIDTH_STEP)
    return int(min(widest, max(narrowest, steps * LINE_WIDTH_STEP)))


def line_share(crop: PixelArray, width: int) -> float:
    """The part of an input of this width that the line itself takes."""
    own = math.ceil(LINE_HEIGHT * crop.shape[1] / crop.shape[0])
    return float(min(width, own) / width)


def line_input(crop: PixelArray, width: int) -> npt.NDArray[np.float32]:
    """[3, LINE_HEIGHT, width] between -1 and 1, zero (grey) to the right of the line."""
    own = round(line_share(crop, width) * width)
    scaled = cv2.resize(crop, (own, LINE_HEIGHT)).astype(np.float32)
    image = np.zeros((3, LINE_HEIGHT, width), dtype=np.float32)
    image[:, :, :own] = scaled.transpose(2, 0, 1) / 255 / 0.5 - 1
    return image


def batches_by_width(crops: Sequence[PixelArray], max_pixels: int) -> list[tuple[int, list[int]]]:
    """(width, indices of crops that have it), widest first.

    A batch has lines of one width only: padding depends on nobody else's lines, nor does the
    text. It has at most `max_pixels` columns, or a single line.
    """
    widths = [line_width(crop) for crop in crops]
    order = sorted(range(len(crops)), key=lambda index: -widths[index])
    batches = []
    for width, group in groupby(order, key=lambda index: widths[index]):
        indices, size = list(group), max(1, max_pixels // width)
        batches += [
            (width, indices[start : start + size]) for start in range(0, len(indices), size)
        ]
    return batches
