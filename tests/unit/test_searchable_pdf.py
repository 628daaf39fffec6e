"""Searchable PDF files: what is read back from them, where, and that it is not painted."""

from __future__ import annotations

import io
import shutil
import subprocess
from math import cos, radians, sin
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
from PIL import Image

from models.page_formats.crops import crops
from models.page_formats.glyphless import GlyphlessFont
from models.page_formats.jpeg import LONGEST
from models.page_formats.pdf import SearchablePdf
from models.types.pages import DocumentPage, Page, TextLine, Word
from tests.rendered_pages import encoded

DPI = 144
POINTS = 72 / DPI
TEXTS = (
    "Größe naïve façade €5",
    "発行日 令和六年 請求書",
    "Счёт № 17",
    "한국어 영수증",
    "emoji 😀 here",
)


def line(text: str, x: float, y: float, *, width: float, angle: float = 0, **more: Any) -> TextLine:
    """A line of 40 pixels, turned clockwise by `angle` around its top left corner."""
    right = (cos(radians(angle)), sin(radians(angle)))
    down = (-right[1], right[0])

    def corner(a: float, b: float) -> tuple[float, float]:
        return x + a * right[0] + b * down[0], y + a * right[1] + b * down[1]

    polygon = (corner(0, 0), corner(width, 0), corner(width, 40), corner(0, 40))
    return TextLine(text, 0.9, polygon, **more)


def made(*lines: TextLine, colour: str = "white", dpi: int | None = DPI) -> bytes:
    page = DocumentPage(0, Page(800, 600, lines), dpi)
    pdf = SearchablePdf()
    pdf.add(page, encoded(Image.new("RGB", (800, 600), colour)))
    return pdf.finish()


def read(data: bytes, index: int = 0) -> str:
    with pypdfium2.PdfDocument(data) as document:
        return str(document[index].get_textpage().get_text_bounded())


def place_of(data: bytes, wanted: str) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a text in pixels of the page, as a viewer marks it."""
    with pypdfium2.PdfDocument(data) as document:
        page = document[0].get_textpage()
        start, count = page.search(wanted).get_next()
        boxes = [page.get_charbox(i, loose=True) for i in range(start, start + count)]
        height = document[0].get_height()
    left, bottom, right, top = zip(*boxes, strict=True)
    sides = (min(left), height - max(top), max(right), height - min(bottom))
    return tuple(side / POINTS for side in sides)  # type: ignore[return-value]


def test_every_script_is_read_back() -> None:
    lines = [line(text, 50, 50 + 80 * row, width=24 * len(text)) for row, text in enumerate(TEXTS)]
    assert read(made(*lines)).split("\r\n") == list(TEXTS)


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="poppler-utils are not installed")
def test_pdftotext_finds_every_line(tmp_path: Path) -> None:
    lines = [line(text, 50, 50 + 80 * row, width=24 * len(text)) for row, text in enumerate(TEXTS)]
    file = tmp_path / "page.pdf"
    file.write_bytes(made(*lines))
    run = subprocess.run(["pdftotext", file, "-"], capture_output=True, text=True, check=True)
    assert [text for text in run.stdout.splitlines() if text.strip()][:5] == list(TEXTS)


def test_words_lie_on_their_boxes() -> None:
    words = (
        Word("Total", 0.9, ((100, 200), (220, 200), (220, 240), (100, 240))),
        Word("1,234.56", 0.8, ((400, 200), (640, 200), (640, 240), (400, 240))),
    )
    data = made(line("Total 1,234.56", 100, 200, width=540, words=words))
    assert read(data) == "Total 1,234.56"
    assert place_of(data, "Total") == pytest.approx((100, 200, 220, 240), abs=1)
    assert place_of(data, "1,234.56") == pytest.approx((400, 200, 640, 240), abs=1)


def test_words_that_no_engine_locates_share_the_line() -> None:
    data = made(line("ab cdefg", 100, 100, width=400))
    assert place_of(data, "ab") == pytest.approx((100, 100, 200, 140), abs=1)
    assert place_of(data, "cdefg") == pytest.approx((250, 100, 500, 140), abs=1)


@pytest.mark.parametrize(
    ("angle", "place"),
    [(90, (160, 100, 200, 400)), (-90, (200, 100, 240, 400)), (180, (200, 360, 500, 400))],
)
def test_turned_lines_lie_where_they_are_seen(
    angle: float, place: tuple[float, float, float, float]
) -> None:
    corner = {90: (200, 100), -90: (200, 400), 180: (500, 400)}[int(angle)]
    data = made(line("sideways", *corner, width=300, angle=angle))
    assert place_of(data, "sideways") == pytest.approx(place, abs=1)


def test_a_slightly_turned_line_is_one_line() -> None:
    assert read(made(line("a line that leans a little", 60, 80, width=600, angle=4))) == (
        "a line that leans a little"
    )


@pytest.mark.parametrize(("colour", "painted"), [("white", (255,) * 3), ("navy", (0, 0, 128))])
def test_the_picture_is_seen_and_the_text_is_not(
    colour: str, painted: tuple[int, int, int]
) -> None:
    data = made(line("not to be seen", 50, 50, width=500), colour=colour)
    with pypdfium2.PdfDocument(data) as document:
        extrema = document[0].render(scale=1).to_pil().convert("RGB").getextrema()
    for (low, high), value in zip(extrema, painted, strict=True):
        assert value - 4 <= low <= high <= value + 4


def test_pages_are_as_large_as_their_resolution_says() -> None:
    with pypdfium2.PdfDocument(made(dpi=72)) as document:
        assert document[0].get_size() == (800, 600)
    with pypdfium2.PdfDocument(made(dpi=None)) as document:
        assert document[0].get_size() == pytest.approx((842, 631.5))


def test_pages_share_one_font_and_follow_each_other() -> None:
    pdf = SearchablePdf()
    picture = encoded(Image.new("RGB", (800, 600), "white"))
    for index, text in enumerate(("first ñ", "second ñ 漢")):
        pdf.add(DocumentPage(index, Page(800, 600, (line(text, 9, 9, width=200),)), DPI), picture)
    data = pdf.finish()
    assert [read(data, index) for index in (0, 1)] == ["first ñ", "second ñ 漢"]
    assert data.count(b"/FontFile2") <= 1


def test_lines_without_extent_or_text_are_left_out() -> None:
    flat = TextLine("flat", 0.5, ((5, 5), (5, 5), (5, 5), (5, 5)))
    assert read(made(flat, line("", 50, 50, width=100), line("seen", 50, 150, width=100))) == "seen"


def test_codes_run_out_without_running_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.page_formats.glyphless.MAX_CODES", 4)
    font = GlyphlessFont()
    assert font.encode("abcdefa") == "<0001000200030004000400040001>"


@pytest.mark.parametrize("turn", [1, 3])
def test_sideways_boxes_say_where_their_text_begins(turn: int) -> None:
    box = ((160, 100), (200, 100), (200, 400), (160, 400))
    data = made(TextLine("up down", 0.9, box, turn=turn))
    assert read(data) == "up down"
    share = 300 * 2 / 7
    place = (160, 100, 200, 100 + share) if turn == 1 else (160, 400 - share, 200, 400)
    assert place_of(data, "up") == pytest.approx(place, abs=1)


def test_pictures_longer_than_jpeg_has_sides_are_smaller() -> None:
    picture = encoded(Image.new("RGB", (70_000, 20), "navy"))
    pdf = SearchablePdf()
    pdf.add(DocumentPage(0, Page(70_000, 20, ()), None), picture)
    with pypdfium2.PdfDocument(pdf.finish()) as document:
        assert document[0].get_width() == pytest.approx(842)
        assert document[0].render(scale=4).to_pil().convert("RGB").getpixel((9, 0))[2] > 100
    (cut,) = crops(picture, [(0, 0, 70_000, 10)])
    with Image.open(io.BytesIO(cut)) as image:
        assert image.size == (LONGEST, round(10 * LONGEST / 70_000))
