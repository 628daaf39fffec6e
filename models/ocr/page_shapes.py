"""Pages of strange shapes, for models that see whole pages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_ASPECT = 16
"""Longer pictures get white pixels beside them."""
LONGEST = 4096
"""Pixels of the longer side of such pictures; others are left as they are."""
WHITE = 255

AS_READ = {"input_data_format": "channels_last", "return_tensors": "pt"}
"""Pages are [height, width, 3], which processors guess, and guess wrong for one pixel of height."""

Picture = npt.NDArray[np.uint8]
"""[3, height, width]."""


def with_bounded_shapes(processor: Any) -> Any:
    """A processor of pages whose pictures are never scaled to more than what they may have.

    Those of Donut and Nougat first scale the shorter side to that of the input, whatever the longer
    one becomes: a line of 20,000 x 10 pixels, also one that is left after margins are cut off,
    would take gigabytes.
    """
    resize = processor.resize

    def bounded(image: Picture, *args: Any, **options: Any) -> Picture:
        resized: Picture = resize(bounded_shape(image), *args, **options)
        return resized

    processor.resize = bounded
    return processor


def bounded_shape(image: Picture) -> Picture:
    """The picture itself unless it is many times as long as wide, or as wide as long."""
    sides = image.shape[1:]
    if max(sides) <= MAX_ASPECT * min(sides):
        return image
    step = math.ceil(max(sides) / LONGEST)
    image = image[:, ::step, ::step]
    least = math.ceil(max(image.shape) / MAX_ASPECT)
    missing = [(0, max(0, least - side)) for side in image.shape[1:]]
    return np.pad(image, [(0, 0), *missing], constant_values=WHITE)
