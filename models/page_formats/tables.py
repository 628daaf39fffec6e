"""Tables that have no lines to show them: rows whose cells stand in columns."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median

from models.page_formats.geometry import Box, around, box_of
from models.reading_order import rows_across
from models.types import TextLine

Row = list[TextLine]
Cells = list[list[str]]

MIN_ROWS = {2: 3}
"""By the number of columns; otherwise two rows are enough."""
RUNNING_TEXT_CHARS = 25
"""Two columns of lines that long are columns of text."""
MIN_FILLED_SHARE = 0.6
MAX_GAP_HEIGHTS = 2.0
MIN_SEPARATION_HEIGHTS = 0.3


def row_box(row: Row) -> Box:
    return around(box_of(line.polygon) for line in row)


def table_at(rows: Sequence[Row], start: int) -> int:
    """How many rows from `start` on are a table; 0: none is there."""
    if len(rows[start]) < 2:
        return 0
    stop = start + 1
    while stop < len(rows) and _follows(rows, stop):
        stop += 1
    while len(rows[stop - 1]) < 2:
        stop -= 1
    for end in range(stop, start + 1, -1):
        if len(rows[end - 1]) >= 2 and _is_table(rows[start:end]):
            return end - start
    return 0


def tables_across(lines: Sequence[TextLine]) -> list[list[Row]]:
    """Tables as wide as the page, whatever order their cells are read in; turned text is none."""
    upright = [line for line in lines if not line.turn]
    order = rows_across([line.polygon for line in upright])
    rows = [[upright[index] for index in row] for row in order]
    tables, index = [], 0
    while index < len(rows):
        count = table_at(rows, index)
        if count:
            tables.append(rows[index : index + count])
        index += count or 1
    return tables


def cells_of(rows: Sequence[Row]) -> Cells:
    """The texts of a table, row by row, each row as long as the widest."""
    columns = columns_of(rows)
    cells = [[""] * len(columns) for _ in rows]
    for texts, row in zip(cells, rows, strict=True):
        for line in row:
            column = _column(columns, line)
            texts[column] = f"{texts[column]} {line.text}".strip()
    return cells


def columns_of(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """The stretches of x that cells take up, left to right: those that overlap are one column."""
    boxes = sorted(box_of(line.polygon) for row in rows for line in row)
    columns: list[tuple[float, float]] = []
    for box in boxes:
        if columns and box.left < columns[-1][1] + MIN_SEPARATION_HEIGHTS * box.height:
            columns[-1] = (columns[-1][0], max(columns[-1][1], box.right))
        else:
            columns.append((box.left, box.right))
    return columns


def markdown_table(cells: Cells) -> str:
    """A pipe table; its first row is the head, since the format demands one."""
    lines = ["| " + " | ".join(map(_pipe_cell, row)) + " |" for row in cells]
    lines.insert(1, "| " + " | ".join("---" for _ in cells[0]) + " |")
    return "\n".join(lines)


def html_table(cells: Cells) -> str:
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in cells)
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _pipe_cell(text: str) -> str:
    return text.replace("|", "\\|")


def _follows(rows: Sequence[Row], index: int) -> bool:
    """Below the row before, not far from it, and not the second row with one cell in succession."""
    above, row = row_box(rows[index - 1]), row_box(rows[index])
    if row.middle[1] <= above.middle[1]:
        return False
    if row.top - above.bottom > MAX_GAP_HEIGHTS * min(row.height, above.height):
        return False
    return len(rows[index]) > 1 or len(rows[index - 1]) > 1


def _is_table(rows: Sequence[Row]) -> bool:
    columns = columns_of(rows)
    if len(columns) < 2 or len(rows) < MIN_ROWS.get(len(columns), 2):
        return False
    places = [[_column(columns, line) for line in row] for row in rows]
    if any(len(set(row)) < len(row) for row in places) or not _aligned(rows, places):
        return False
    if _is_running_text(rows, places):
        return False
    filled = sum(map(len, places))
    return filled >= MIN_FILLED_SHARE * len(columns) * len(rows)


def _is_running_text(rows: Sequence[Row], places: Sequence[Sequence[int]]) -> bool:
    lengths: dict[int, list[int]] = {}
    for row, columns in zip(rows, places, strict=True):
        for line, column in zip(row, columns, strict=True):
            lengths.setdefault(column, []).append(len(line.text))
    return sum(median(column) >= RUNNING_TEXT_CHARS for column in lengths.values()) > 1


def _aligned(rows: Sequence[Row], places: Sequence[Sequence[int]]) -> bool:
    """Whether every cell stands above or below a part of the widest of its column."""
    boxes: dict[int, list[Box]] = {}
    for row, columns in zip(rows, places, strict=True):
        for line, column in zip(row, columns, strict=True):
            boxes.setdefault(column, []).append(box_of(line.polygon))
    widest = {column: max(cells, key=lambda box: box.width) for column, cells in boxes.items()}
    return all(
        box.left < widest[column].right and box.right > widest[column].left
        for column, cells in boxes.items()
        for box in cells
    )


def _column(columns: Sequence[tuple[float, float]], line: TextLine) -> int:
    left = box_of(line.polygon).left
    return max(index for index, column in enumerate(columns) if column[0] <= left)
