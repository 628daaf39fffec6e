"""Layout: decoding of the network's grids, regions beside lines, and blocks by regions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models.base import TextRecognizer
from models.errors import EngineDeadError, ModelError, OverloadedError, UnsupportedInputError
from models.layout.picodet import boxes_of, surest
from models.layout.recognizer import LayoutRecognizer
from models.layout.slanet import cells_of_tokens
from models.page_formats.blocks import table_html
from models.page_formats.markdown import page_markdown
from models.page_formats.regions import blocks_of
from models.toy.ocr import ToyTextRecognizer
from models.types.pages import OcrRequest, OcrResult, Page, PixelArray, Region, TableCell
from tests.pages import line, page, row
from tests.rendered_pages import encoded


def test_distances_are_means_of_distributions_around_the_points_of_a_grid() -> None:
    logits = np.full((4, 4, 8), -50, dtype=np.float32)
    logits[:, 0, 1] = logits[:, 1, 2] = logits[:, 2, 3] = 0
    logits[:, 3, 0] = logits[:, 3, 1] = 0  # half a step
    boxes = boxes_of(16, logits.reshape(4, 32), width=32)
    assert boxes[0] == pytest.approx([8 - 16, 8 - 32, 8 + 48, 8 + 8])
    assert boxes[3] == pytest.approx([24 - 16, 24 - 32, 24 + 48, 24 + 8])


def test_of_boxes_that_overlap_the_surest_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10], [0, 50, 9, 60]], np.float32)
    scores = np.array([[0.6, 0.0], [0.1, 0.9], [0.5, 0.0], [0.2, 0.3]], np.float32)
    assert surest(scores, boxes) == [(1, 1), (2, 0)]


class Regions:
    """Says that the left half of every page is a picture."""

    memory_bytes = 7

    def regions(self, pixels: PixelArray) -> tuple[Region, ...]:
        height, width = pixels.shape[:2]
        return (Region("figure", 0.9, (0, 0, width / 2, height)),)


@pytest.fixture
def recognizer() -> Iterator[LayoutRecognizer]:
    engine = LayoutRecognizer(ToyTextRecognizer(), Regions(), n_threads=1, max_queued=2)
    yield engine
    engine.close()


def picture(width: int, height: int) -> bytes:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).rectangle((5, 5, 14, 9), fill="black")
    return encoded(image)


def test_pages_have_lines_and_regions(recognizer: LayoutRecognizer) -> None:
    requests = [OcrRequest((picture(40, 30), picture(60, 20))), OcrRequest((b"no image",))]
    good, bad = recognizer.submit(requests).result(60)
    assert isinstance(good, OcrResult)
    assert [p.regions[0].box for p in good.pages] == [(0, 0, 20, 30), (0, 0, 30, 20)]
    assert [p.lines[0].text for p in good.pages] == ["ink of 10 x 5 pixels"] * 2
    assert isinstance(bad, UnsupportedInputError)
    assert recognizer.memory_bytes == 7
    assert recognizer.alive


def test_more_pages_than_may_wait_are_refused() -> None:
    reading: Future[list[OcrResult | ModelError]] = Future()
    lines = Mock(TextRecognizer)
    lines.submit.return_value = reading
    engine = LayoutRecognizer(lines, Regions(), n_threads=1, max_queued=2)
    request = OcrRequest((np.zeros((8, 8, 3), np.uint8),))
    answers = [engine.submit([request]) for _ in range(2)]
    with pytest.raises(OverloadedError):
        engine.submit([request])
    reading.set_result([OcrResult((page(),))])
    for answer in answers:
        assert len(answer.result(60)) == 1
    engine.close()
    lines.close.assert_called_once_with()


class Slow(Regions):
    """Waits at its first page until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.pages = 0

    def regions(self, pixels: PixelArray) -> tuple[Region, ...]:
        self.pages += 1
        self.begun.set()
        assert self.go_on.wait(60)
        return super().regions(pixels)


def test_nothing_more_is_read_for_whoever_has_left() -> None:
    reading: Future[list[OcrResult | ModelError]] = Future()
    lines = Mock(TextRecognizer)
    lines.submit.return_value = reading
    detector = Slow()
    engine = LayoutRecognizer(lines, detector, n_threads=1, max_queued=2)
    blank = np.zeros((8, 8, 3), np.uint8)
    answer = engine.submit([OcrRequest((blank, blank))])
    assert detector.begun.wait(60)
    assert answer.cancel()
    assert reading.cancelled()
    detector.go_on.set()
    engine.close()
    assert detector.pages == 1


def test_a_closed_engine_says_so(recognizer: LayoutRecognizer) -> None:
    recognizer.close()
    with pytest.raises(EngineDeadError):
        recognizer.submit([OcrRequest((picture(8, 8),))])


TABLE = [*row(400, (50, "a"), (300, "b")), *row(430, (50, "c"), (300, "d"))]
LINES = (
    line("Head", 50, 10),
    line("A heading", 50, 100),
    line("running text that is", 50, 200),
    line("two lines long", 50, 225),
    *TABLE,
    line("Figure 1: dots", 50, 700),
    line("text in no region", 50, 800),
)
PAGE = Page(
    800,
    1000,
    LINES,
    regions=(
        Region("text", 0.95, (40, 190, 700, 250)),
        Region("table", 0.9, (40, 390, 700, 460)),
        Region("figure", 0.8, (40, 500, 700, 690)),
        Region("title", 0.7, (40, 90, 300, 130)),
        Region("figure_caption", 0.6, (40, 695, 300, 725)),
        Region("header", 0.6, (40, 5, 300, 35)),
        Region("text", 0.6, (500, 900, 600, 950)),
    ),
)


def test_regions_say_what_blocks_are() -> None:
    blocks = blocks_of(PAGE)
    assert [(block.kind, block.confidence) for block in blocks] == [
        ("header", 0.6),
        ("title", 0.7),
        ("text", 0.95),
        ("table", 0.9),
        ("image", 0.8),
        ("caption", 0.6),
        ("text", None),
    ]
    assert blocks[4].box == (40, 500, 700, 690)
    assert blocks[3].cells == [["a", "b"], ["c", "d"]]
    assert sum(len(block.lines) for block in blocks) == len(LINES)


def cell(row: int, column: int, *box: float, spans: tuple[int, int] = (1, 1)) -> TableCell:
    left, top, right, bottom = box
    return TableCell(row, column, *spans, (left, top, right, bottom))


def test_tags_become_cells_of_a_grid() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    written = ["<tr>", "<td", ' rowspan="2"', ">", "</td>", "<td", ' colspan="2"', ">", "</td>"]
    written += ["</tr>", "<tr>", "<td></td>", "<td></td>", "</tr>"]
    cells = cells_of_tokens([(tag, box) for tag in written])
    places = [(c.row, c.column, c.row_span, c.column_span) for c in cells]
    assert places == [(0, 0, 2, 1), (0, 1, 1, 2), (1, 1, 1, 1), (1, 2, 1, 1)]
    assert cells_of_tokens([("<td></td>", box)]) == []


CELLS = (
    cell(0, 0, 40, 390, 500, 425, spans=(1, 2)),
    cell(1, 0, 40, 425, 250, 460),
    cell(1, 1, 250, 425, 500, 460),
)


def test_words_are_put_into_the_cells_that_a_model_tells() -> None:
    regions = (Region("table", 0.9, (40, 390, 700, 460), CELLS),)
    (block,) = blocks_of(Page(800, 1000, tuple(TABLE), regions))
    assert block.cells == [["a b", ""], ["c", "d"]]
    assert table_html(block) == (
        '<table><tr><td colspan="2">a b</td></tr><tr><td>c</td><td>d</td></tr></table>'
    )


def test_cells_that_do_not_fit_the_words_are_not_believed() -> None:
    elsewhere = (cell(0, 0, 600, 600, 700, 700), cell(0, 1, 700, 600, 800, 700))
    regions = (Region("table", 0.9, (40, 390, 700, 460), elsewhere),)
    (block,) = blocks_of(Page(800, 1000, tuple(TABLE), regions))
    assert block.cells == [["a", "b"], ["c", "d"]]
    assert table_html(block).startswith("<table><tr><td>a</td><td>b</td></tr>")


class OneTable:
    """Says that every page is a table, and the whole of its picture one cell."""

    memory_bytes = 5

    def regions(self, pixels: PixelArray) -> tuple[Region, ...]:
        return (Region("table", 0.9, (20, 30, 60, 70)), Region("text", 0.9, (0, 0, 5, 5)))

    def cells(self, pixels: PixelArray) -> tuple[TableCell, ...]:
        height, width = pixels.shape[:2]
        return (cell(0, 0, 0, 0, width, height),)


def test_cells_are_in_pixels_of_the_page() -> None:
    engine = LayoutRecognizer(ToyTextRecognizer(), OneTable(), OneTable(), n_threads=1)
    (result,) = engine.submit([OcrRequest((picture(100, 100),))]).result(60)
    engine.close()
    assert isinstance(result, OcrResult)
    table, text = result.pages[0].regions
    assert [cell.box for cell in table.cells] == [(16, 26, 64, 74)]
    assert text.cells == ()
    assert engine.memory_bytes == 10


class Uncertain(OneTable):
    """Cells that lie over each other, unless the picture has so many pixels."""

    def __init__(self, good_width: int) -> None:
        self._good_width = good_width

    def cells(self, pixels: PixelArray) -> tuple[TableCell, ...]:
        second = 20 if pixels.shape[1] == self._good_width else 10
        return cell(0, 0, 0, 0, 20, 40), cell(0, 1, second, 0, 40, 40)


@pytest.mark.parametrize(("good_width", "count"), [(48, 2), (40, 2), (64, 2), (99, 0)])
def test_cells_over_each_other_are_looked_for_again_and_not_believed(
    good_width: int, count: int
) -> None:
    tables = Uncertain(good_width)
    engine = LayoutRecognizer(ToyTextRecognizer(), OneTable(), tables, n_threads=1)
    (result,) = engine.submit([OcrRequest((picture(100, 100),))]).result(60)
    engine.close()
    assert isinstance(result, OcrResult)
    assert len(result.pages[0].regions[0].cells) == count


def test_a_title_is_one_although_it_is_not_high() -> None:
    assert "\n\n### A heading\n\nrunning text that is\n" in page_markdown(PAGE)


def test_unknown_labels_are_text() -> None:
    strange = page(line("some text", 50, 50))
    strange = Page(800, 1000, strange.lines, (Region("stamp", 0.9, (0, 0, 800, 1000)),))
    assert [block.kind for block in blocks_of(strange)] == ["text"]
