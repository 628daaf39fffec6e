"""Rendered pages as files."""

from __future__ import annotations

import io

from PIL import Image

from models.types.pages import PixelArray


def png(pixels: PixelArray) -> bytes:
    """The page as a PNG file, packed quickly rather than tightly."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
