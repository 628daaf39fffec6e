"""What a page is made of: titles, paragraphs, lists, tables, by the shape of its lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Literal

from models.page_formats.geometry import Box, around, box_of, text_height
from models.page_formats.table_cells import FilledCell, spanning_html
from models.page_formats.tables import (
    Cells,
    Row,
    cells_of,
    html_table,
    row_box,
    table_runs,
    tables_across,
)
from models.types.pages import TextLine

Kind = Literal[
    "text",
    "title",
    "list",
    "table",
    "image",
    "caption",
    "references",
    "equation",
    "header",
    "footer",
]
"""By Mistral's names."""

TITLE_HEIGHTS = (1.9, 1.6, 1.35)
"""Of titles of the first, second and third level, in heights of the page's running text."""
MAX_TITLE_ROWS = 3
MAX_GAP_HEIGHTS = 0.9
"""Between two lines of a paragraph."""
MAX_HEIGHT_RATIO = 1.3
BULLET = re.compile(r"[•◦▪●‣·*–—-]\s+(?=\S)")
NUMBER = re.compile(r"(?:\d{1,3}|[a-z])[.)]\s+(?=\S)")


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one kind. `level` of titles: 1 to 3. `cells`: the texts of a table.

    `confidence` is how sure the kind is, `spanning` the cells with their spans, where models tell.
    """

    kind: Kind
    rows: tuple[tuple[TextLine, ...], ...]
    box: Box
    level: int = 0
    cells: Cells | None = None
    confidence: float | None = None
    spanning: tuple[FilledCell, ...] = ()

    @property
    def lines(self) -> list[TextLine]:
        return [line for row in self.rows for line in row]


def blocks_of_rows(rows: Sequence[Row], body: float | None = None) -> list[Block]:
    """Blocks of rows in reading order; a table is read where its first cell is.

    `body` is the height of running text, that of the rows where it is None.
    """
    body = body_height(rows) if body is None else body
    tables = tables_across([line for row in rows for line in row])
    table_of = {id(line): table for table in tables for row in table for line in row}
    blocks: list[Block] = []
    pending: list[Row] = []
    done: list[list[Row]] = []
    for row in rows:
        for line in row:
            table = table_of.get(id(line))
            if table is not None and not any(table is other for other in done):
                blocks += [*_with_tables(pending, body), table_block(table)]
                pending = []
                done.append(table)
        rest = [line for line in row if id(line) not in table_of]
        pending += [rest] if rest else []
    return blocks + _with_tables(pending, body)


def _with_tables(rows: Sequence[Row], body: float) -> list[Block]:
    """Blocks of rows that are no part of a table across the page, but may be in one column."""
    blocks: list[Block] = []
    done = 0
    for start, count in table_runs(rows):
        blocks += text_blocks(rows[done:start], body)
        done = start + count
        blocks.append(table_block(rows[start:done]))
    return blocks + text_blocks(rows[done:], body)


def table_block(rows: Sequence[Row], confidence: float | None = None) -> Block:
    return block_of("table", rows, cells=cells_of(rows), confidence=confidence)


def table_html(block: Block) -> str:
    return spanning_html(block.spanning) if block.spanning else html_table(block.cells or [])


def body_height(rows: Sequence[Row]) -> float:
    """The height that half of the page's letters stand in."""
    heights = sorted((text_height(line), len(line.text)) for row in rows for line in row)
    half, seen = sum(count for _, count in heights) / 2, 0
    for height, count in heights:
        seen += count
        if seen >= half:
            return height
    return 0.0


def block_text(block: Block) -> str:
    """Its words as they are read, without any markup."""
    return "\n".join(" ".join(line.text for line in row) for row in block.rows)


def mean_confidence(lines: Sequence[TextLine]) -> float | None:
    return fmean(line.confidence for line in lines) if lines else None


def text_blocks(
    rows: Sequence[Row], body: float, *, confidence: float | None = None
) -> list[Block]:
    """Blocks of rows without tables."""
    if not rows:
        return []
    groups = [[rows[0]]]
    for above, row in pairwise(rows):
        if _belongs(above, row):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [block for group in groups for block in _parts(group, body, confidence)]


def _belongs(above: Row, row: Row) -> bool:
    """Whether a row is the next line of the paragraph of the row above it."""
    if above[0].turn != row[0].turn:
        return False
    heights = (median(map(text_height, above)), median(map(text_height, row)))
    if max(heights) > MAX_HEIGHT_RATIO * min(heights):
        return False
    first, second = row_box(above), row_box(row)
    if second.middle[1] <= first.middle[1]:
        return False
    if second.top - first.bottom > MAX_GAP_HEIGHTS * min(heights):
        return False
    return min(first.right, second.right) > max(first.left, second.left)


def _parts(rows: Sequence[Row], body: float, confidence: float | None) -> list[Block]:
    """A title, a list, a paragraph, or a paragraph that a list follows."""
    level = title_level(rows, body)
    if level:
        return [block_of("title", rows, level=level, confidence=confidence)]
    start = _list_start(rows)
    parts = [block_of("text", rows[:start], confidence=confidence)] if start else []
    if start < len(rows):
        parts.append(block_of("list", rows[start:], confidence=confidence))
    return parts


def title_level(rows: Sequence[Row], body: float) -> int:
    if len(rows) > MAX_TITLE_ROWS or not body:
        return 0
    height = median(text_height(line) for row in rows for line in row)
    levels = [level for level, times in enumerate(TITLE_HEIGHTS, 1) if height >= times * body]
    return levels[0] if levels else 0


def _list_start(rows: Sequence[Row]) -> int:
    """The first row of the list that the rows end with; their number where there is none."""
    marks = [index for index, row in enumerate(rows) if list_mark(row[0].text)]
    numbered = [index for index in marks if NUMBER.match(rows[index][0].text)]
    if len(numbered) == 1 and len(marks) == 1:  # a sentence may begin with a number
        return len(rows)
    return marks[0] if marks else len(rows)


def list_mark(text: str) -> str:
    """The bullet or number that a line begins with, as markdown writes it; none: empty."""
    if BULLET.match(text):
        return "- "
    number = NUMBER.match(text)
    return number.group().strip() + " " if number else ""


def without_mark(text: str) -> str:
    return NUMBER.sub("", BULLET.sub("", text, count=1), count=1) if list_mark(text) else text


def block_of(
    kind: Kind,
    rows: Sequence[Row],
    *,
    level: int = 0,
    cells: Cells | None = None,
    confidence: float | None = None,
) -> Block:
    box = around(box_of(line.polygon) for row in rows for line in row)
    return Block(kind, tuple(map(tuple, rows)), box, level, cells, confidence)
