"""The order in which people read the text boxes of a page.

Boxes on one line go left to right, lines top to bottom. A gutter that splits the page into columns
of running text is read column by column; a gutter between short cells (a table, label and value) is
not, since rows are what matters there. The text may be slightly rotated.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import truediv
from statistics import median

import numpy as np
import numpy.typing as npt

from models.types.pages import Point

Polygon = tuple[Point, Point, Point, Point]

MIN_COLUMN_LINES = 3
MIN_COLUMN_ASPECT = 6.0
"""Running text has lines at least this many times as wide as high; cells are shorter."""
MIN_COLUMN_FILL = 0.65
"""The part of its lines that has text on it; the rest are gaps."""
MAX_SPANNING_SHARE = 0.34
"""Titles and footers may cross a gutter, but only so many of all boxes."""
MIN_GUTTER_HEIGHTS = 0.7
SAME_LINE_OVERLAP = 0.5
THINNEST = 1e-6
"""Of a line: that of a dot rounds to nothing."""
MAX_COLUMNS = 12
"""Beside or within each other; what is left then is read row by row."""
MAX_GUTTERS = 48
"""Strips that are looked at, those that the fewest boxes cross first: strangers draw thousands."""


@dataclass(frozen=True, slots=True)
class _Box:
    """Upright bounds of a polygon after the page's rotation is undone."""

    index: int
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


def reading_order(polygons: Sequence[Polygon]) -> list[int]:
    """Indices of the polygons (corners clockwise from the top left, y down) as they are read."""
    return [index for line in reading_lines(polygons) for index in line]


def reading_lines(polygons: Sequence[Polygon]) -> list[list[int]]:
    """The same, those of one printed line together."""
    if not polygons:
        return []
    return [[box.index for box in line] for line in _ordered(_upright_boxes(polygons))]


def page_angle(polygons: Sequence[Polygon] | npt.NDArray[np.float32]) -> float:
    """Radians by which the text runs downwards: of the usual one among the longer boxes."""
    corners = np.asarray(polygons, dtype=np.float64)
    edges = corners[:, 1] - corners[:, 0]
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    long = lengths >= np.median(lengths)
    return float(np.median(np.arctan2(edges[long, 1], edges[long, 0])))


def rows_across(polygons: Sequence[Polygon]) -> list[list[int]]:
    """Indices of the polygons that stand on one height, top to bottom, across all columns."""
    if not polygons:
        return []
    return [[box.index for box in line] for line in _lines(_upright_boxes(polygons))]


def _upright_boxes(polygons: Sequence[Polygon]) -> list[_Box]:
    corners = np.asarray(polygons, dtype=np.float64)
    angle = page_angle(polygons)
    cos, sin = np.cos(-angle), np.sin(-angle)
    turned = corners @ np.array([[cos, sin], [-sin, cos]])
    low, high = turned.min(axis=1), turned.max(axis=1)
    return [_Box(index, *map(float, (*low[index], *high[index]))) for index in range(len(polygons))]


def _ordered(boxes: list[_Box], columns: int = MAX_COLUMNS) -> list[list[_Box]]:
    """Their lines, of so many columns at most."""
    gutter = _gutter(boxes) if columns > 1 else None
    if gutter is None:
        return _lines(boxes)
    spanning = [box for box in boxes if box.left < gutter < box.right]
    ordered: list[list[_Box]] = []
    rest = [box for box in boxes if not box.left < gutter < box.right]
    for line in _lines(spanning):
        above = [box for box in rest if box.middle < line[0].middle]
        rest = [box for box in rest if box.middle >= line[0].middle]
        ordered += [*_side_by_side(above, gutter, columns - 1), line]
    return ordered + _side_by_side(rest, gutter, columns - 1)


def _side_by_side(boxes: list[_Box], gutter: float, columns: int) -> list[list[_Box]]:
    left = [box for box in boxes if box.right <= gutter]
    right = [box for box in boxes if box.right > gutter]
    return [line for side in (left, right) if side for line in _ordered(side, columns)]


def _lines(boxes: list[_Box]) -> list[list[_Box]]:
    """Boxes grouped into lines, top to bottom, each left to right."""
    lines: list[list[_Box]] = []
    tops: list[float] = []  # of the last line, in order: there may be thousands of boxes on one
    bottoms: list[float] = []
    for box in sorted(boxes, key=lambda box: box.middle):
        if lines and _on_one_line(_median(tops), _median(bottoms), box):
            lines[-1].append(box)
        else:
            lines.append([box])
            tops, bottoms = [], []
        insort(tops, box.top)
        insort(bottoms, box.bottom)
    return [sorted(line, key=lambda box: box.left) for line in lines]


def _on_one_line(top: float, bottom: float, box: _Box) -> bool:
    overlap = min(bottom, box.bottom) - max(top, box.top)
    return overlap > SAME_LINE_OVERLAP * min(bottom - top, box.height)


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _gutter(boxes: list[_Box]) -> float | None:
    """The x of a gutter between two columns of running text, or None."""
    candidates = _low_coverage(boxes)
    for _, _, position in sorted(candidates)[:MAX_GUTTERS]:
        left = [box for box in boxes if box.right <= position]
        right = [box for box in boxes if box.left >= position]
        if _is_running_text(left) and _is_running_text(right):
            return position
    return None


def _low_coverage(boxes: list[_Box]) -> list[tuple[int, float, float]]:
    """(boxes that cross it, minus its width, its middle) of every vertical strip wide enough."""
    width = MIN_GUTTER_HEIGHTS * median(box.height for box in boxes)
    events = sorted([(box.left, 1) for box in boxes] + [(box.right, -1) for box in boxes])
    covered, strips = 0, []
    for (start, change), (end, _) in pairwise(events):
        covered += change
        if end - start > width and covered <= MAX_SPANNING_SHARE * len(boxes):
            strips.append((covered, start - end, (start + end) / 2))
    return strips


def _is_running_text(boxes: list[_Box]) -> bool:
    lines = _lines(boxes)
    if len(lines) < MIN_COLUMN_LINES:
        return False
    extents = [max(line[-1].right - line[0].left, THINNEST) for line in lines]
    printed = [sum(box.right - box.left for box in line) for line in lines]
    heights = [box.height for box in boxes]
    # a row of cells is as long as a line of text, but mostly white
    filled = median(map(truediv, printed, extents)) >= MIN_COLUMN_FILL
    return filled and median(extents) >= MIN_COLUMN_ASPECT * median(heights)
