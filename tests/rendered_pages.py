"""Pages of known text, drawn with Pillow's own font, and how wrong a reading of them is."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN = 40


def encoded(image: Image.Image, format_name: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def page(lines: Sequence[str], size: int = 24, width: int = 800) -> Image.Image:
    """Black on white, one line below the other, `size` pixels high."""
    image = Image.new("RGB", (width, 2 * MARGIN + 2 * size * len(lines)), "white")
    draw_lines(image, lines, MARGIN, size)
    return image


def two_columns(left: Sequence[str], right: Sequence[str], size: int = 20) -> Image.Image:
    """Two columns of running text side by side on one page of 1000 pixels."""
    rows = max(len(left), len(right))
    image = Image.new("RGB", (1000, 2 * MARGIN + 2 * size * rows), "white")
    draw_lines(image, left, MARGIN, size)
    draw_lines(image, right, 520, size)
    return image


def draw_lines(image: Image.Image, lines: Sequence[str], x: int, size: int) -> None:
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size)
    for row, line in enumerate(lines):
        draw.text((x, MARGIN + 2 * size * row), line, fill="black", font=font)


def character_error_rate(expected: str, read: str) -> float:
    """Edits that turn `read` into `expected`, per expected character (Levenshtein)."""
    row = list(range(len(read) + 1))
    for i, wanted in enumerate(expected, 1):
        above, row[0] = row[0], i
        for j, got in enumerate(read, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (wanted != got))
    return row[-1] / max(1, len(expected))
