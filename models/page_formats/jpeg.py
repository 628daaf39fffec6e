"""Pictures as JPEG files."""

from __future__ import annotations

import io

from PIL import Image

LONGEST = 65_500
"""Pixels of a side that the format's library writes."""


def storable(picture: Image.Image) -> Image.Image:
    """The picture, or a smaller one where JPEG cannot have so long a side."""
    if max(picture.size) <= LONGEST:
        return picture
    smaller = picture.copy()
    smaller.thumbnail((LONGEST, LONGEST))
    return smaller


def jpeg(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    storable(picture).save(out, "JPEG", quality=quality)
    return out.getvalue()
