"""PDF files and images of several frames, opened in a child process with real bytes."""

from __future__ import annotations

import ast
import json
import signal
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.child_process import ChildProcess
from models.documents import opening, pdf
from models.documents.limits import DocumentLimits
from models.documents.opening import Document, PdfPages, as_file, count_pages, open_document
from models.errors import InvalidInputError, UnsupportedInputError
from models.types.pages import DocumentRequest, Page
from tests import documents
from tests.documents import encrypted_pdf, form_pdf, picture_of, scanned_pdf, text_page, tiff
from tests.rendered_pages import encoded

LIMITS = DocumentLimits(max_pages=5, max_pixels=4_000_000, page_seconds=30)
TWO_PAGES = documents.pdf([text_page(["Hello world", "Second line"]), b"1 0 0 rg 72 72 72 72 re f"])


@contextmanager
def opened(data: bytes, limits: DocumentLimits = LIMITS, **options: Any) -> Iterator[Document]:
    request = DocumentRequest(b"", **{"dpi": 72, "param": "document", **options})
    with as_file(data) as file:
        document = open_document(file, request, limits)
        try:
            yield document
        finally:
            document.close()


def text_of(document: Document, index: int = 0) -> Page:
    content = document.page(index).content
    assert isinstance(content, Page)
    return content


def test_a_page_with_text_is_not_rendered() -> None:
    with opened(TWO_PAGES, dpi=144) as document:
        assert document.selected == [0, 1]
        page = text_of(document)
    assert (page.width, page.height) == (1190, 1684)
    assert page.text == "Hello world\nSecond line"
    line = page.lines[0]
    assert line.confidence == 1.0
    assert [word.text for word in line.words] == ["Hello", "world"]
    (left, top), (right, _), (_, bottom), _ = line.polygon
    assert (left, right - left) == (144, pytest.approx(119, abs=4))
    assert top < 2 * (842 - 760) < bottom  # the base line, counted from the top
    assert bottom - top == pytest.approx(2 * 12, abs=8)


def test_a_page_without_text_is_rendered() -> None:
    with opened(TWO_PAGES) as document:
        pixels = document.page(1).content
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (842, 595, 3)
    assert pixels[842 - 100, 100].tolist() == [255, 0, 0]
    assert pixels[10, 10].tolist() == [255, 255, 255]


def test_text_can_be_ignored() -> None:
    with opened(TWO_PAGES, force_ocr=True) as document:
        pixels = document.page(0).content
    assert isinstance(pixels, np.ndarray)
    rows, columns = np.nonzero(pixels.min(axis=2) < 128)
    assert abs(columns.min() - 72) < 4
    assert abs(rows.max() - (842 - 740)) < 5


def test_columns_are_read_one_after_the_other() -> None:
    left = ["The first column has text", "that runs for several lines", "until it comes to an end"]
    right = ["The second one follows it", "and is read after the first", "because of the gutter"]
    page = text_page(left, x=60) + b"\n" + text_page(right, x=330)
    with opened(documents.pdf([page])) as document:
        assert text_of(document).text.split("\n") == left + right


def test_what_was_filled_into_a_form_is_text_of_the_page() -> None:
    with opened(form_pdf("Name", "Ada Lovelace")) as document:
        page = text_of(document)
    assert page.text == "Name Ada Lovelace"
    assert page.lines[1].continues
    assert 200 <= page.lines[1].polygon[0][0] <= 210


@pytest.mark.parametrize(
    "box", ["/MediaBox[0 0 500 900]", "/MediaBox[0 0 700 900]/CropBox[9 0 509 900]"]
)
def test_a_form_has_the_size_that_its_parent_tells(box: str) -> None:
    with opened(form_pdf("Name", "Ada Lovelace", parent=box)) as document:
        page = text_of(document)
        pixels = document.picture(0).content
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (900, 500, 3)
    assert (page.width, page.height, page.text) == (500, 900, "Name Ada Lovelace")
    left, top = (72 - 9, 900 - 760) if "Crop" in box else (72, 900 - 760)
    (x, y), _, (_, bottom), _ = page.lines[0].polygon
    assert x == pytest.approx(left, abs=2)
    assert y < top < bottom
    rows, _ = np.nonzero(pixels.min(axis=2) < 128)
    assert abs(rows.max() - top) < 12


def test_what_is_drawn_nowhere_leaves_a_page_as_it_is() -> None:
    """Links, for example."""
    data = form_pdf("Name", "Ada", parent="/MediaBox[0 0 595 842]").replace(b"/AP<<", b"/XX<<")
    with opened(data) as document:
        page = text_of(document)
    assert (page.width, page.height, page.text) == (595, 842, "Name")
    (_, top), _, (_, bottom), _ = page.lines[0].polygon
    assert top < 842 - 760 < bottom


@pytest.mark.parametrize(("matrix", "turn"), [("0 1 -1 0", 3), ("0 -1 1 0", 1), ("1 0 0 1", 0)])
def test_text_that_runs_up_or_down_says_so(matrix: str, turn: int) -> None:
    content = f"BT /F1 12 Tf {matrix} 300 400 Tm (up and down) Tj ET".encode()
    with opened(documents.pdf([content])) as document:
        (line,) = text_of(document).lines
    assert (line.text, line.turn) == ("up and down", turn)
    middles = [sum(y for _, y in word.polygon) / 4 for word in line.words]
    assert middles == sorted(middles, reverse=turn == 3)


def test_positions_are_those_of_the_page_as_it_is_shown() -> None:
    """Turned by a quarter, cut, and with an origin of its own."""
    entries = "/Rotate 90/CropBox[50 100 550 800]"
    content = text_page(["ink"], x=60, top=110) + b"\n0 0 0 rg 60 100 20 10 re f"
    data = documents.pdf([content], entries=entries)
    with opened(data) as document:
        page = text_of(document)
    with opened(data, force_ocr=True) as document:
        pixels = document.page(0).content
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (500, 700, 3)
    assert (page.width, page.height) == (700, 500)
    assert page.lines[0].turn == 1
    rows, columns = np.nonzero(pixels.min(axis=2) < 128)
    corners = page.lines[0].polygon
    assert 0 <= corners[0][0] <= columns.max()
    assert corners[0][1] <= rows.max()
    assert corners[2][0] <= columns.max() + 20
    assert rows.min() <= corners[2][1] <= rows.min() + 40


def test_scans_are_read_by_their_looks_although_a_stamp_is_text() -> None:
    with opened(scanned_pdf(["scan one", "scan two"])) as document:
        assert isinstance(document.page(1).content, np.ndarray)
    stamped = documents.pdf(
        [b"q 595 0 0 842 0 0 cm BI /W 1 /H 1 /CS /G /BPC 8 ID \xff EI Q\n" + text_page(["Page 1"])]
    )
    with opened(stamped) as document:
        assert isinstance(document.page(0).content, np.ndarray)


@pytest.mark.parametrize(
    ("pages", "selected"), [(None, [0, 1, 2]), (((2, 2), (0, 0)), [2, 0]), (((1, 9),), [1, 2])]
)
def test_frames_of_a_tiff_are_pages(pages: Any, selected: list[int]) -> None:
    widths = (30, 40, 50)
    data = tiff([Image.new("RGB", (width, 20), "white") for width in widths])
    with opened(data, pages=pages) as document:
        assert document.selected == selected
        for index in selected:
            pixels = document.page(index).content
            assert isinstance(pixels, np.ndarray)
            assert pixels.shape == (20, widths[index], 3)


@pytest.mark.parametrize("pages", [((2, 2),), ((5, 9),)])
def test_pages_that_do_not_exist(pages: Any) -> None:
    with (
        pytest.raises(InvalidInputError, match="the document has 2") as caught,
        opened(TWO_PAGES, pages=pages),
    ):
        pass
    assert caught.value.param == "pages"


def test_more_pages_than_the_limit_are_refused_and_a_part_of_them_is_not() -> None:
    data = documents.pdf([b""] * 6)
    with pytest.raises(InvalidInputError, match="More than 5 pages"), opened(data):
        pass
    with opened(data, pages=((1, 5),)) as document:
        assert document.selected == [1, 2, 3, 4, 5]


def test_the_size_of_a_page_is_checked_before_it_is_rendered() -> None:
    data = documents.pdf([text_page(["text"])], box="0 0 14400 14400")
    for force_ocr in (False, True):
        with (
            opened(data, dpi=144, force_ocr=force_ocr) as document,
            pytest.raises(
                InvalidInputError,
                match="28800 x 28800 pixels at this resolution; the limit is 4000000",
            ) as caught,
        ):
            document.page(0)
        assert caught.value.param == "document"


OPERATORS = b"q 1 0 0 1 0 0 cm 0 0 m 500 800 l S Q\n" * 3_000_000
ENDLESS = documents.pdf([OPERATORS])
"""A page of 110 MB of content, in 300 kB."""


def test_a_page_that_takes_too_long_costs_its_document_only() -> None:
    limits = DocumentLimits(page_seconds=1)
    with (
        opened(ENDLESS, limits) as document,
        pytest.raises(UnsupportedInputError, match="too much time or memory"),
    ):
        document.page(0)
    with opened(TWO_PAGES) as document:
        assert text_of(document).text.startswith("Hello")


def test_rendering_may_map_no_more_memory_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.documents.limits.BASE_ADDRESS_SPACE", 160 << 20)
    monkeypatch.setattr("models.documents.limits.BYTES_PER_PIXEL", 0)
    limits = DocumentLimits(page_seconds=30)
    with opened(ENDLESS, limits) as document, pytest.raises(UnsupportedInputError, match="memory"):
        document.page(0)


def test_closing_ends_a_page_that_is_being_rendered() -> None:
    limits = DocumentLimits(page_seconds=600)
    with opened(ENDLESS, limits) as document:
        failures: list[BaseException] = []

        def read() -> None:
            try:
                document.page(0)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        document.close()
        thread.join(20)
        assert not thread.is_alive()
        assert isinstance(failures[0], UnsupportedInputError)


def test_a_child_that_nobody_ends_ends_itself() -> None:
    """By its clock: of memory it has more than the page takes."""
    stream = zlib.compress(OPERATORS)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents[%b]>>" % (b"4 0 R " * 4),
        b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(stream), stream),
    ]
    requests = ({"do": "open", "password": None}, {"do": "text", "page": 0, "dpi": 72})
    with as_file(documents.assembled(objects)) as file:
        arguments = [file.fileno(), 4_000_000, 1 << 34, 1]
        child = ChildProcess(pdf.CHILD, arguments, inherited=[file.fileno()])
        for request in requests:
            text = json.dumps(request).encode()
            child.send(len(text).to_bytes(4, "little"), text)
        assert json.loads(child.receive(int.from_bytes(child.receive(4), "little"))) == {"pages": 1}
        with pytest.raises(EOFError):
            child.receive(4)
        assert child._process.wait(60) == -signal.SIGALRM
        child.stop()


LOOP = [
    b"<</Type/Catalog/Pages 2 0 R>>",
    b"<</Type/Pages/Kids[2 0 R]/Count 1>>",
]
SCRIPT = "/OpenAction<</S/JavaScript/JS(app.alert\\(1\\))>>"
NO_DOCUMENTS = {
    "empty": b"",
    "html with the magic": b"%PDF-1.7\n<html><script>alert(1)</script></html>",
    "cut": TWO_PAGES[: len(TWO_PAGES) // 3],
    "no pages": documents.pdf([]),
    "script when opened": documents.pdf([b""], catalog=SCRIPT),
    "script when opened, elsewhere": documents.pdf([b""], catalog="/OpenAction 3 0 R").replace(
        b"<</Type/Font/Subtype/Type1", b"<</S/JavaScript/JS(1)/Type/Font"
    ),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "zip": b"PK\3\4" + bytes(100),
}


@pytest.mark.parametrize("name", NO_DOCUMENTS)
def test_what_is_no_document_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError) as caught, opened(NO_DOCUMENTS[name]):
        pass
    assert caught.value.param == "document"
    for leak in ("0x", "object at", "/", "Traceback", "dfium"):
        assert leak not in caught.value.message.removeprefix("The document is not a PDF, PNG")


@pytest.mark.parametrize("data", [documents.assembled(LOOP), TWO_PAGES[:-300]])
def test_broken_page_trees_end(data: bytes) -> None:
    """Whether such a file can be opened is the reader's affair; it must only come to an end."""
    try:
        with opened(data) as document:
            for index in document.selected:
                document.page(index)
    except InvalidInputError:
        pass


def test_claiming_pages_is_not_having_them() -> None:
    data = documents.pdf([b""]).replace(b"/Count 1", b"/Count 99999")
    with pytest.raises(InvalidInputError, match="pages"), opened(data):
        pass


ENCRYPTED = encrypted_pdf("Hidden", "secret")


def test_encrypted_files_need_their_password() -> None:
    for password, message in ((None, "encrypted"), ("wrong", "encrypted")):
        with (
            pytest.raises(InvalidInputError, match=message) as caught,
            opened(ENCRYPTED, password=password),
        ):
            pass
        assert caught.value.param == "password"
    with opened(ENCRYPTED, password="secret") as document:
        assert text_of(document).text == "Hidden"


def test_a_circular_chain_of_frames_ends() -> None:
    data = bytearray(tiff([picture_of("a", (30, 30))]))
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    with opened(bytes(data)) as document:
        assert document.selected == [0]


def test_pages_of_uploaded_files_are_counted() -> None:
    frames = tiff([Image.new("L", (9, 9))] * 3)
    cases = [
        (TWO_PAGES, 2),
        (frames, 3),
        (encoded(Image.new("L", (9, 9))), 1),
        (ENCRYPTED, None),
        (b"text", None),
        (TWO_PAGES[:100], None),
    ]
    for data, pages in cases:
        with as_file(data) as file:
            assert count_pages(file, LIMITS) == pages


@pytest.mark.parametrize(
    "reply", [b"[]", b"{}", b'{"pages": "many"}', b'{"pages": 0}', b"nonsense"]
)
def test_a_child_that_answers_nonsense_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, reply: bytes
) -> None:
    script = tmp_path / "child.py"
    answer = len(reply).to_bytes(4, "little") + reply
    script.write_text(f"import sys; sys.stdin.buffer.read(4); sys.stdout.buffer.write({answer!r})")
    monkeypatch.setattr(pdf, "CHILD", script)
    with pytest.raises(UnsupportedInputError), opened(TWO_PAGES):
        pass


def test_the_child_imports_the_standard_library_and_pdfium_only() -> None:
    """It runs with -I, where the project cannot be imported."""
    tree = ast.parse(pdf.CHILD.read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"__future__", "typing", "pypdfium2"}


def test_pictures_of_pages_can_be_had_whatever_they_say() -> None:
    with opened(TWO_PAGES) as document:
        assert isinstance(document, PdfPages)
        assert isinstance(document.picture(0).content, np.ndarray)
    assert opening.COUNTING_BOUND > 1000
