"""Pages of known text, and how wrong a reading of them is.

Fonts come with packages that are installed anyway: DejaVu with matplotlib, Noto Sans CJK with a
package of its own. Everything is seeded: a page is the same on every machine.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
import noto_cjk_sans_jp_regular
import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 40
DEJAVU = Path(mpl.get_data_path()) / "fonts" / "ttf"
FONTS = {
    "sans": DEJAVU / "DejaVuSans.ttf",
    "bold": DEJAVU / "DejaVuSans-Bold.ttf",
    "serif": DEJAVU / "DejaVuSerif.ttf",
    "mono": DEJAVU / "DejaVuSansMono.ttf",
    "cjk": Path(str(noto_cjk_sans_jp_regular.FONT_PATH)),
}
Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Sample:
    """A page and the text on it, in reading order."""

    image: Image.Image
    text: str


def encoded(image: Image.Image, format_name: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


@cache
def font_of(name: str | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """One of FONTS, or Pillow's own."""
    if name is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(FONTS[name], size)


def page(
    lines: Sequence[str],
    size: int = 24,
    width: int = 800,
    font: str | None = None,
    ink: Colour = BLACK,
    paper: Colour = (255, 255, 255),
) -> Image.Image:
    """One line below the other, `size` pixels high."""
    image = Image.new("RGB", (width, 2 * MARGIN + 2 * size * len(lines)), paper)
    draw_lines(image, lines, MARGIN, size, font, ink)
    return image


def two_columns(
    left: Sequence[str], right: Sequence[str], size: int = 20, font: str | None = None
) -> Image.Image:
    """Two columns of running text side by side on one page of 1000 pixels."""
    rows = max(len(left), len(right))
    image = Image.new("RGB", (1000, 2 * MARGIN + 2 * size * rows), "white")
    draw_lines(image, left, MARGIN, size, font)
    draw_lines(image, right, 520, size, font)
    return image


def tight(line: str, size: int, margin: int, font: str | None = None) -> Image.Image:
    """A picture of one line with only so much paper around it."""
    drawn = font_of(font, size)
    left, top, right, bottom = map(int, drawn.getbbox(line))
    image = Image.new("RGB", (right - left + 2 * margin, bottom - top + 2 * margin), "white")
    ImageDraw.Draw(image).text((margin - left, margin - top), line, fill=BLACK, font=drawn)
    return image


def table(rows: Sequence[Sequence[str]], size: int = 22, font: str | None = None) -> Image.Image:
    """Cells with rules around them, each column 260 pixels wide."""
    width, height = 260, 2 * size
    image = Image.new(
        "RGB", (2 * MARGIN + width * len(rows[0]), 2 * MARGIN + height * len(rows)), "white"
    )
    draw = ImageDraw.Draw(image)
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            left, top = MARGIN + width * x, MARGIN + height * y
            draw.rectangle((left, top, left + width, top + height), outline="grey")
            draw.text((left + 12, top + size // 2 - 2), cell, fill=BLACK, font=font_of(font, size))
    return image


def receipt(items: Sequence[tuple[str, str]], size: int = 20, width: int = 420) -> Image.Image:
    """Narrow, in a font like a till's: names on the left, amounts flush right."""
    image = Image.new("RGB", (width, 2 * MARGIN + 2 * size * len(items)), "white")
    draw = ImageDraw.Draw(image)
    font = font_of("mono", size)
    for row, (name, amount) in enumerate(items):
        y = MARGIN + 2 * size * row
        draw.text((MARGIN, y), name, fill=BLACK, font=font)
        draw.text((width - MARGIN, y), amount, fill=BLACK, font=font, anchor="ra")
    return image


def rotated(image: Image.Image, degrees: float) -> Image.Image:
    """Turned a little, as a scan that lay askew."""
    return image.rotate(
        degrees, resample=Image.Resampling.BICUBIC, expand=True, fillcolor=(255, 255, 255)
    )


def noisy(image: Image.Image, deviation: float = 25.0, seed: int = 0) -> Image.Image:
    """With a sensor's noise, of so many levels of grey."""
    pixels = np.asarray(image, dtype=np.float64)
    noise = np.random.default_rng(seed).normal(0, deviation, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def draw_lines(
    image: Image.Image,
    lines: Sequence[str],
    x: int,
    size: int,
    font: str | None = None,
    ink: Colour = BLACK,
) -> None:
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        draw.text((x, MARGIN + 2 * size * row), line, fill=ink, font=font_of(font, size))


ENGLISH = (
    "The quick brown fox jumps over the lazy dog",
    "Invoice 2024-117 for Miller and Sons",
    "Total due: 1,234.56 EUR by 31 March",
)
GERMAN = (
    "Größe und Gewicht: über 40 kg",
    "Straße zum Café in München",
    "Öffnungszeiten täglich außer Montag",
)
FRENCH = ("Élève à la crèche près du château", "Ça coûte très peu, même à Noël")
CHINESE = ("今天天气很好", "我们去北京大学学习")
JAPANESE = ("東京都に住んでいます", "カタカナとひらがな")
LEFT = (
    "The first column has text",
    "that runs for several lines",
    "so that a reader goes down",
    "before going to the right.",
)
RIGHT = (
    "The second column follows",
    "and is read after the first",
    "because a gutter lies in",
    "between the two of them.",
)
CELLS = (
    ("Article", "Quantity", "Price"),
    ("Paper A4", "500", "12.50"),
    ("Pencils", "24", "7.99"),
    ("Stapler", "1", "18.00"),
)
ITEMS = (("Bread", "2.49"), ("Milk 1.5%", "1.19"), ("Apples 1kg", "3.29"), ("TOTAL", "6.97"))


def _lines(lines: Sequence[str], image: Image.Image) -> Sample:
    return Sample(image, "\n".join(lines))


def _rows(rows: Sequence[Sequence[str]], image: Image.Image) -> Sample:
    return Sample(image, "\n".join(" ".join(row) for row in rows))


SAMPLES: dict[str, Callable[[], Sample]] = {
    "sans": lambda: _lines(ENGLISH, page(ENGLISH, 24, font="sans")),
    "serif": lambda: _lines(ENGLISH, page(ENGLISH, 20, font="serif")),
    "mono": lambda: _lines(ENGLISH, page(ENGLISH, 18, font="mono")),
    "small": lambda: _lines(ENGLISH, page(ENGLISH, 14, font="sans")),
    "large": lambda: _lines(ENGLISH, page(ENGLISH, 48, 1400, font="bold")),
    "rotated": lambda: _lines(ENGLISH, rotated(page(ENGLISH, 28, 900, font="sans"), 3)),
    "noisy": lambda: _lines(ENGLISH, noisy(page(ENGLISH, 28, 900, font="sans"))),
    "faint": lambda: _lines(
        ENGLISH, page(ENGLISH, 28, 900, "sans", ink=(150, 150, 150), paper=(215, 215, 215))
    ),
    "columns": lambda: _lines((*LEFT, *RIGHT), two_columns(LEFT, RIGHT, font="serif")),
    "table": lambda: _rows(CELLS, table(CELLS, font="sans")),
    "receipt": lambda: _rows(ITEMS, receipt(ITEMS)),
    "german": lambda: _lines(GERMAN, page(GERMAN, 28, font="sans")),
    "french": lambda: _lines(FRENCH, page(FRENCH, 28, font="serif")),
    "chinese": lambda: _lines(CHINESE, page(CHINESE, 32, font="cjk")),
    "japanese": lambda: _lines(JAPANESE, page(JAPANESE, 32, font="cjk")),
}


def character_error_rate(expected: str, read: str) -> float:
    """Edits that turn `read` into `expected`, per expected character (Levenshtein)."""
    row = list(range(len(read) + 1))
    for i, wanted in enumerate(expected, 1):
        above, row[0] = row[0], i
        for j, got in enumerate(read, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (wanted != got))
    return row[-1] / max(1, len(expected))
