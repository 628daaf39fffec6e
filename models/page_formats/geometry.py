"""Boxes and words on a page, in pixels from its top left corner."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from math import hypot
from typing import NamedTuple

from models.types.pages import Page, Point, TextLine, Word

Polygon = tuple[Point, Point, Point, Point]


class Box(NamedTuple):
    """An upright rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


def box_of(polygon: Polygon) -> Box:
    xs, ys = zip(*polygon, strict=True)
    return Box(min(xs), min(ys), max(xs), max(ys))


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box with all of them in it; there must be one."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return Box(min(lefts), min(tops), max(rights), max(bottoms))


def rounded(box: Box, page: Page) -> tuple[int, int, int, int]:
    """Whole pixels inside the page, as most formats want them."""
    x, y = (page.width, page.height)
    left, right = (min(x, max(0, round(value))) for value in (box.left, box.right))
    top, bottom = (min(y, max(0, round(value))) for value in (box.top, box.bottom))
    return left, top, right, bottom


def along_text(polygon: Polygon, turn: int) -> Polygon:
    """The corners clockwise from the one where the text has its top left."""
    first, second, third, fourth = (polygon[(turn + index) % 4] for index in range(4))
    return first, second, third, fourth


def text_height(line: TextLine) -> float:
    """Across the direction of the text, whatever that is."""
    (x0, y0), _, _, (x3, y3) = along_text(line.polygon, line.turn)
    return hypot(x3 - x0, y3 - y0)


def printed_rows(page: Page) -> list[list[TextLine]]:
    """The page's lines, those that stand side by side and run the same way together."""
    rows: list[list[TextLine]] = []
    for line in page.lines:
        if line.continues and rows and rows[-1][-1].turn == line.turn:
            rows[-1].append(line)
        else:
            rows.append([line])
    return rows


def words_of(line: TextLine) -> Sequence[Word]:
    """The line's words; where the engine does not locate them, as if letters were equally wide."""
    if line.words:
        return line.words
    texts = line.text.split()
    if len(texts) < 2:
        return [Word(text, line.confidence, line.polygon) for text in texts]
    total = _columns(line.text)
    words, place = [], 0
    for text in texts:
        start = line.text.index(text, place)
        place = start + len(text)
        share = (_columns(line.text[:start]) / total, _columns(line.text[:place]) / total)
        part = _part(along_text(line.polygon, line.turn), *share)
        words.append(Word(text, line.confidence, along_text(part, -line.turn)))
    return words


def _columns(text: str) -> int:
    """The width of a text in half letters of its script, as terminals count it."""
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _part(polygon: Polygon, start: float, stop: float) -> Polygon:
    """What lies between two shares of the way from its left edge to its right edge."""
    top_left, top_right, bottom_right, bottom_left = polygon
    return (
        _between(top_left, top_right, start),
        _between(top_left, top_right, stop),
        _between(bottom_left, bottom_right, stop),
        _between(bottom_left, bottom_right, start),
    )


def _between(first: Point, second: Point, share: float) -> Point:
    return (
        first[0] + share * (second[0] - first[0]),
        first[1] + share * (second[1] - first[1]),
    )
