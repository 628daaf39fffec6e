"""Parts of a page's picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

JPEG_QUALITY = 90


def crops(picture: bytes, boxes: Sequence[tuple[int, int, int, int]]) -> list[bytes]:
    """JPEG files of the boxes (left, top, right, bottom) of an image file. Blocking."""
    with Image.open(io.BytesIO(picture)) as image:
        pixels = image.convert("RGB")
    return [_jpeg(pixels.crop(box)) for box in boxes]


def _jpeg(pixels: Image.Image) -> bytes:
    out = io.BytesIO()
    pixels.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()
