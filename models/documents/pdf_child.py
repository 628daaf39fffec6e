"""The process that opens PDF files for `models/documents/pdf.py`; it may be killed at any time.

Run as a script: it imports the standard library and pypdfium2, nothing else of this project. The
file is an open descriptor, so that it knows no path. It reads requests from stdin and writes
replies to stdout: the length of a JSON object, the object, and after a rendered page its pixels.
PDFium is built without a JavaScript engine; a file that wants to run some at once is refused.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
import re
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

import pypdfium2
from pypdfium2 import raw

LENGTH = struct.Struct("<I")
POINTS_PER_INCH = 72
WHITE = 0xFFFFFFFF
MAX_CHARS = 100_000
"""Of a page's own text; a page that claims more is read by its looks."""
MAX_OBJECTS = 2000
"""Of a page, looked at to find pictures."""
OPEN_ACTION = re.compile(rb"/OpenAction\s*(?:(?P<object>\d+)\s+\d+\s+R|(?P<inline>.{0,400}))", re.S)
SCRIPT = b"/JavaScript"
SPACES = "\t\n\r "
HYPHEN = 2
"""PDFium's code for a hyphen at the end of a line."""
GAP_HEIGHTS = 1.2
"""A gap as wide as so many heights of the characters around it parts two columns."""

Pixels = bytes | memoryview


class Refused(Exception):
    """Answered with this code."""


class Pdf:
    """One open file; the last page stays loaded, since its text is asked for before its looks."""

    def __init__(self, file: BinaryIO, max_pixels: int) -> None:
        self._file = file
        self._max_pixels = max_pixels
        self._document: Any = None
        self._index = -1
        self._page: Any = None

    def open(self, password: str | None) -> dict[str, Any]:
        if _runs_script(self._file):
            raise Refused("script")
        try:
            self._document = pypdfium2.PdfDocument(self._file, password)
        except pypdfium2.PdfiumError as error:
            code = "password" if error.err_code == raw.FPDF_ERR_PASSWORD else "damaged"
            raise Refused(code) from None
        return {"pages": len(self._document)}

    def text(self, index: int, dpi: int) -> dict[str, Any]:
        """Size in pixels, the words of the page's own lines, and whether to trust them."""
        width, height = self._size(index, dpi)
        page = self._loaded(index)
        text_page = raw.FPDFText_LoadPage(page)
        if not text_page:
            raise Refused("damaged")
        characters, unmapped = _characters(text_page, page, (width, height))
        raw.FPDFText_ClosePage(text_page)
        lines, ends = _lines(characters)
        return {
            "size": [width, height],
            "lines": lines,
            "ends": ends,
            "unmapped": unmapped,
            "pictures": _picture_share(page),
        }

    def render(self, index: int, dpi: int) -> tuple[dict[str, Any], Pixels]:
        width, height = self._size(index, dpi)
        page = self._loaded(index)
        pixels = ctypes.create_string_buffer(3 * width * height)
        bitmap = raw.FPDFBitmap_CreateEx(width, height, raw.FPDFBitmap_BGR, pixels, 3 * width)
        if not bitmap:
            raise MemoryError
        raw.FPDFBitmap_FillRect(bitmap, 0, 0, width, height, WHITE)
        flags = raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER
        raw.FPDF_RenderPageBitmap(bitmap, page, 0, 0, width, height, 0, flags)
        raw.FPDFBitmap_Destroy(bitmap)
        return {"size": [width, height]}, memoryview(pixels)

    def _size(self, index: int, dpi: int) -> tuple[int, int]:
        """Pixels, before the page is even parsed."""
        size = raw.FS_SIZEF()
        known = raw.FPDF_GetPageSizeByIndexF(self._document, index, size)
        points = (size.width, size.height)
        if not known or not all(math.isfinite(side) and side > 0 for side in points):
            raise Refused("damaged")
        width, height = (max(1, math.ceil(side * dpi / POINTS_PER_INCH)) for side in points)
        if width * height > self._max_pixels:
            raise Refused(f"pixels {width} x {height}")
        return width, height

    def _loaded(self, index: int) -> Any:
        if self._page is not None and self._index == index:
            return self._page
        raw.FPDF_ClosePage(self._page)  # or nothing
        self._page = None
        page = self._load(index)
        if _is_filled_in(page):
            # What has been filled into a form becomes text of the page, once it is loaded again.
            _own_size(page)
            raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
            raw.FPDF_ClosePage(page)
            page = self._load(index)
        self._page, self._index = page, index
        return page

    def _load(self, index: int) -> Any:
        page = raw.FPDF_LoadPage(self._document, index)
        if not page:
            raise Refused("damaged")
        return page


def _runs_script(file: BinaryIO) -> bool:
    """Whether the catalogue names a script to run when the file is opened, in plain sight."""
    try:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # empty
        return False
    with data:
        action = OPEN_ACTION.search(data)
        if action is None:
            return False
        number = action["object"]
        if number is None:
            return SCRIPT in action["inline"]
        look = rb"\b%b\s+\d+\s+obj\b.{0,400}?%b" % (number, SCRIPT)
        return re.search(look, data, re.S) is not None


Box = tuple[float, float, float, float]
Character = tuple[str, Box | None]
"""The character, and its left, top, right and bottom in pixels unless it is white space."""


def _characters(text_page: Any, page: Any, size: tuple[int, int]) -> tuple[list[Character], int]:
    """All characters, and how many of them the file gives no meaning."""
    count = raw.FPDFText_CountChars(text_page)
    if count > MAX_CHARS:
        return [], count
    found: list[Character] = []
    unmapped = 0
    for index in range(count):
        code = raw.FPDFText_GetUnicode(text_page, index)
        text = _text(code)
        if text in SPACES:
            found.append((text, None))
            continue
        unmapped += raw.FPDFText_HasUnicodeMapError(text_page, index) == 1
        found.append((text, _box(text_page, index, page, size)))
    return found, unmapped


def _text(code: int) -> str:
    if code == HYPHEN:
        return "-"
    return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else "\ufffd"


def _box(text_page: Any, index: int, page: Any, size: tuple[int, int]) -> Box | None:
    rect = raw.FS_RECTF()
    if not raw.FPDFText_GetLooseCharBox(text_page, index, rect):
        return None
    x, y = _device(page, size, rect.left, rect.top)
    u, v = _device(page, size, rect.right, rect.bottom)
    return float(min(x, u)), float(min(y, v)), float(max(x, u)), float(max(y, v))


def _device(page: Any, size: tuple[int, int], x: float, y: float) -> tuple[int, int]:
    left, top = ctypes.c_int(), ctypes.c_int()
    raw.FPDF_PageToDevice(page, 0, 0, *size, 0, x, y, left, top)
    return left.value, top.value


def _lines(characters: list[Character]) -> tuple[list[list[list[Any]]], list[list[Box]]]:
    """The words, [text, left, top, right, bottom], of each line, parted where columns lie side by
    side; and where the first and the last character of each line are."""
    lines: list[list[list[Any]]] = []
    ends: list[list[Box]] = []
    new_line = new_word = True
    for text, box in characters:
        if box is None:
            new_word = True
            new_line = new_line or text in "\r\n"
            continue
        if new_line or _is_apart(lines[-1][-1], box):
            lines.append([])
            ends.append([box, box])
        if new_word or not lines[-1]:
            lines[-1].append([text, *box])
        else:
            word = lines[-1][-1]
            word[0] += text
            word[1:] = [*map(min, word[1:3], box[:2]), *map(max, word[3:], box[2:])]
        ends[-1][1] = box
        new_line = new_word = False
    return lines, ends


def _is_apart(word: list[Any], box: Box) -> bool:
    return bool(box[0] - word[3] > GAP_HEIGHTS * (box[3] - box[1]))


def _is_filled_in(page: Any) -> bool:
    """Whether something that is not of the page itself is drawn on it; links are not."""
    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        drawn = raw.FPDFAnnot_HasKey(annotation, b"AP")
        raw.FPDFPage_CloseAnnot(annotation)
        if drawn:
            return True
    return False


def _own_size(page: Any) -> None:
    """Flattening makes a page whose size is told by its parent one of the size of a letter."""
    box = raw.FS_RECTF()
    if raw.FPDF_GetPageBoundingBox(page, box):
        raw.FPDFPage_SetCropBox(page, box.left, box.bottom, box.right, box.top)


def _picture_share(page: Any) -> float:
    """The part of the page that pictures cover, those on top of each other counted twice."""
    area = raw.FPDF_GetPageWidthF(page) * raw.FPDF_GetPageHeightF(page)
    covered = 0.0
    for index in range(min(MAX_OBJECTS, raw.FPDFPage_CountObjects(page))):
        thing = raw.FPDFPage_GetObject(page, index)
        if raw.FPDFPageObj_GetType(thing) != raw.FPDF_PAGEOBJ_IMAGE:
            continue
        sides = [ctypes.c_float() for _ in range(4)]
        if raw.FPDFPageObj_GetBounds(thing, *sides):
            left, bottom, right, top = (side.value for side in sides)
            covered += (right - left) * (top - bottom)
    return float(min(1.0, covered / area))


def _answer(pdf: Pdf, request: dict[str, Any]) -> tuple[dict[str, Any], Pixels]:
    try:
        if request["do"] == "open":
            return pdf.open(request["password"]), b""
        if request["do"] == "text":
            return pdf.text(request["page"], request["dpi"]), b""
        return pdf.render(request["page"], request["dpi"])
    except Refused as refused:
        return {"error": str(refused)}, b""
    except MemoryError:
        return {"error": "memory"}, b""
    except Exception:  # whatever a library makes of a hostile file
        return {"error": "damaged"}, b""


def serve(file: BinaryIO, max_pixels: int, seconds: int) -> None:
    """Ends the process when an answer takes so long: whoever should do so may be gone."""
    pdf = Pdf(file, max_pixels)
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while header := requests.read(LENGTH.size):
        request = json.loads(requests.read(*LENGTH.unpack(header)))
        signal.alarm(seconds)
        reply, pixels = _answer(pdf, request)
        signal.alarm(0)
        text = json.dumps(reply).encode()
        replies.write(LENGTH.pack(len(text)) + text)
        replies.write(pixels)
        replies.flush()


def main() -> None:
    descriptor, max_pixels, address_space, seconds = map(int, sys.argv[1:])
    for limit, value in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    with os.fdopen(descriptor, "rb") as file:
        serve(file, max_pixels, seconds)


if __name__ == "__main__":
    main()
