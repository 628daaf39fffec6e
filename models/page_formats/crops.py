"""Parts of a page's picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from models.page_formats.jpeg import jpeg

JPEG_QUALITY = 90


def crops(picture: bytes, boxes: Sequence[tuple[int, int, int, int]]) -> list[bytes]:
    """JPEG files of the boxes (left, top, right, bottom) of an image file. Blocking."""
    with Image.open(io.BytesIO(picture)) as image:
        pixels = image.convert("RGB")
    return [jpeg(pixels.crop(box), JPEG_QUALITY) for box in boxes]
