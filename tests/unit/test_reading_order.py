"""The order in which text boxes are read: lines, columns, titles, tables, rotated pages."""

from __future__ import annotations

import math
import random

import pytest

from models.ocr.reading_order import MAX_GUTTERS, Polygon, reading_lines, reading_order
from models.types.pages import Page, TextLine

HEIGHT = 20.0


def box(left: float, top: float, width: float, height: float = HEIGHT) -> Polygon:
    right, bottom = left + width, top + height
    return (left, top), (right, top), (right, bottom), (left, bottom)


def column(left: float, top: float, lines: int, width: float = 400) -> list[Polygon]:
    return [box(left, top + 2 * HEIGHT * i, width) for i in range(lines)]


def rotated(polygon: Polygon, degrees: float) -> Polygon:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    a, b, c, d = ((x * cos - y * sin, x * sin + y * cos) for x, y in polygon)
    return a, b, c, d


TITLE, FOOTER = box(0, 0, 900), box(100, 600, 700)
LAYOUTS = {
    "nothing": [],
    "one line": [box(5, 5, 50)],
    "lines": column(0, 0, 6),
    "pieces of lines": [box(x, y, 90) for y in (0, 40, 80) for x in (0, 120, 240)],
    "uneven baselines": [box(0, 3, 90), box(120, 0, 90), box(0, 43, 90), box(120, 38, 90)],
    "two columns": [*column(0, 0, 5), *column(500, 10, 5)],
    "three columns": [*column(0, 0, 4, 300), *column(400, 0, 4, 300), *column(800, 0, 4, 300)],
    "title and footer": [TITLE, *column(0, 100, 5), *column(500, 100, 5), FOOTER],
    "unequal columns": [*column(0, 0, 9), *column(500, 0, 4)],
    "table": [box(x, y, 60) for y in (0, 40, 80, 120) for x in (0, 200, 400)],
    "wide table": [box(x, y, 110) for y in (0, 40, 80, 120) for x in (0, 260, 520, 780)],
    "labels and values": [b for y in (0, 40, 80) for b in (box(0, y, 80), box(300, y, 60))],
}


@pytest.mark.parametrize("degrees", [0, 3, -4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_read_as_people_do(layout: str, degrees: float) -> None:
    expected = [rotated(polygon, degrees) for polygon in LAYOUTS[layout]]
    shuffled = random.Random(1).sample(expected, len(expected))
    assert [shuffled[index] for index in reading_order(shuffled)] == expected


def test_every_box_is_read_exactly_once() -> None:
    source = random.Random(7)
    for _ in range(50):
        boxes = [
            box(source.uniform(0, 900), source.uniform(0, 900), source.uniform(1, 400))
            for _ in range(source.randrange(1, 40))
        ]
        assert sorted(reading_order(boxes)) == list(range(len(boxes)))


def test_boxes_without_area_do_no_harm() -> None:
    assert sorted(reading_order([box(0, 0, 0, 0)] * 5)) == [0, 1, 2, 3, 4]


def test_a_page_with_a_thousand_boxes_in_columns_is_ordered() -> None:
    boxes = [*column(0, 0, 500), *column(500, 0, 500)]
    assert reading_order(boxes) == list(range(1000))


def test_boxes_of_one_printed_line_belong_together() -> None:
    boxes = [box(0, 0, 60), box(200, 2, 60), box(0, 40, 240)]
    assert reading_lines(boxes) == [[0, 1], [2]]
    texts = zip(("Total", "12.50", "Thank you"), (False, True, False), boxes, strict=True)
    page = Page(
        260,
        60,
        tuple(TextLine(text, 1.0, polygon, continues) for text, continues, polygon in texts),
    )
    assert page.text == "Total 12.50\nThank you"


def test_boxes_that_rounding_has_left_no_width_are_no_column() -> None:
    dots = [box(0, 2 * HEIGHT * i, 0) for i in range(3)]
    assert sorted(reading_order([*dots, *column(100, 0, 3)])) == list(range(6))


def test_of_many_gaps_only_the_clearest_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def count(boxes: list[object]) -> bool:
        looked_at.append(len(boxes))
        return False

    monkeypatch.setattr("models.ocr.reading_order._is_running_text", count)
    boxes = [box(3 * HEIGHT * i, 0, HEIGHT) for i in range(500)]
    assert reading_order(boxes) == list(range(500))
    assert len(looked_at) <= MAX_GUTTERS


def test_hundreds_of_columns_are_read() -> None:
    columns = [column(500 * i, 0, 3) for i in range(700)]
    order = reading_order([polygon for lines in columns for polygon in lines])
    assert order[:30] == list(range(30))
    assert sorted(order) == list(range(2100))
