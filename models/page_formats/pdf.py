"""A searchable PDF: each page is its picture, under text that is not painted but can be found.

Every word lies on its place in the picture, turned and stretched as the word is, so that marking
text in a viewer marks the words that one sees.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from math import hypot

from pikepdf import Array, Dictionary, Name, Pdf, Stream
from pikepdf import Page as PdfPage
from PIL import Image

from models.page_formats.geometry import Polygon, along_text, printed_rows, words_of
from models.page_formats.glyphless import ADVANCE, DESCENT, UNITS, GlyphlessFont
from models.page_formats.jpeg import jpeg, storable
from models.types.pages import DocumentPage, Page

POINTS_PER_INCH = 72
LONG_SIDE = 842.0
"""In points, that of A4, for images, which do not say how large they are."""
JPEG_QUALITY = 85
EM = ADVANCE / UNITS


class SearchablePdf:
    """A PDF file that grows by a page at a time; it keeps them compressed. Blocking."""

    def __init__(self) -> None:
        self._pdf = Pdf.new()
        self._font = GlyphlessFont()
        self._fonts = self._pdf.make_indirect(Dictionary())

    def add(self, document_page: DocumentPage, picture: bytes) -> None:
        """`picture` is an image file of the page, of the size that the page tells."""
        page = document_page.page
        scale = _points_per_pixel(page, document_page.dpi)
        size = (page.width * scale, page.height * scale)
        painted = "q {:.3f} 0 0 {:.3f} 0 0 cm /Picture Do Q".format(*size)
        text = "\n".join([painted, "BT 3 Tr", *self._text(page, scale), "ET"])
        sheet = Dictionary(
            Type=Name.Page,
            MediaBox=Array([0, 0, *(round(side, 3) for side in size)]),
            Resources=Dictionary(
                Font=self._fonts, XObject=Dictionary(Picture=_picture(self._pdf, picture))
            ),
            Contents=Stream(self._pdf, text.encode("ascii")),
        )
        self._pdf.pages.append(PdfPage(self._pdf.make_indirect(sheet)))

    def finish(self) -> bytes:
        self._fonts["/Text"] = self._pdf.make_indirect(self._font.embed(self._pdf))
        out = io.BytesIO()
        self._pdf.save(out, compress_streams=True, deterministic_id=True)
        self._pdf.close()
        return out.getvalue()

    def _text(self, page: Page, scale: float) -> Iterator[str]:
        for row in printed_rows(page):
            words = [(word, line.turn) for line in row for word in words_of(line)]
            places = [
                _to_points(along_text(word.polygon, turn), page, scale) for word, turn in words
            ]
            for (word, _), place, following in zip(
                words, places, [*places[1:], None], strict=False
            ):
                yield self._word(word.text, place, following)

    def _word(self, text: str, place: Polygon, following: Polygon | None) -> str:
        """The operators that show a word, and the space up to the one that follows."""
        top, _, right, left = place
        length, height = _distance(left, right), _distance(left, top)
        if not (text and length and height):
            return ""
        cos, sin = (right[0] - left[0]) / length, (right[1] - left[1]) / length
        rise = -DESCENT / UNITS
        x, y = left[0] + rise * (top[0] - left[0]), left[1] + rise * (top[1] - left[1])
        shown = [
            f"/Text {height:.3f} Tf",
            f"{cos:.5f} {sin:.5f} {-sin:.5f} {cos:.5f} {x:.3f} {y:.3f} Tm",
            self._stretched(text, length, height),
        ]
        if following is not None:
            shown.append(self._stretched(" ", _distance(right, following[3]), height))
        return " ".join(shown)

    def _stretched(self, text: str, length: float, height: float) -> str:
        """Shows a text as long as that; Tz is the stretch in per cent."""
        stretch = 100 * length / (EM * height * len(text))
        return f"{max(0.1, stretch):.3f} Tz {self._font.encode(text)} Tj"


def _points_per_pixel(page: Page, dpi: int | None) -> float:
    return POINTS_PER_INCH / dpi if dpi else LONG_SIDE / max(page.width, page.height)


def _to_points(polygon: Polygon, page: Page, scale: float) -> Polygon:
    """PDF measures from the bottom left corner."""
    first, second, third, fourth = ((x * scale, (page.height - y) * scale) for x, y in polygon)
    return first, second, third, fourth


def _distance(first: tuple[float, float], second: tuple[float, float]) -> float:
    return hypot(second[0] - first[0], second[1] - first[1])


def _picture(pdf: Pdf, data: bytes) -> Stream:
    """As JPEG, in shades of grey where it has no colours."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = storable(image.convert("RGB"))
    red, green, blue = pixels.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        pixels = red
    colours = Name.DeviceGray if pixels.mode == "L" else Name.DeviceRGB
    return Stream(
        pdf,
        jpeg(pixels, JPEG_QUALITY),
        Type=Name.XObject,
        Subtype=Name.Image,
        Width=pixels.width,
        Height=pixels.height,
        ColorSpace=colours,
        BitsPerComponent=8,
        Filter=Name.DCTDecode,
    )
