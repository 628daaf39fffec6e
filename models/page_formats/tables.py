"""Tables that have no lines to show them: rows whose cells stand in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from statistics import median

from models.ocr.reading_order import rows_across
from models.page_formats.geometry import Box, around, box_of
from models.types.pages import TextLine

Row = list[TextLine]
Cells = list[list[str]]

MIN_ROWS = {2: 3}
"""By the number of columns; otherwise two rows are enough."""
RUNNING_TEXT_CHARS = 25
"""Two columns of lines that long are columns of text."""
MIN_FILLED_SHARE = 0.6
MAX_ROWS = 200
"""Of one table; a longer one is several."""
MAX_GAP_HEIGHTS = 2.0
MIN_SEPARATION_HEIGHTS = 0.3


def row_box(row: Row) -> Box:
    return around(box_of(line.polygon) for line in row)


def table_runs(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """First row and number of rows of every table.

    Rows that stand like a table but are none are not looked at again from each of them on: a page
    of strangers may have thousands.
    """
    index = 0
    while index < len(rows):
        count = _rows_in_columns(rows, index)
        if count and _is_table(rows[index : index + count]):
            yield index, count
            index += count
        else:
            index += 1 + count // 2


def _rows_in_columns(rows: Sequence[Row], start: int) -> int:
    """How many rows from `start` on have all their cells in columns; 0 for fewer than two."""
    if len(rows[start]) < 2:
        return 0
    stop = start + 1
    while stop < min(len(rows), start + MAX_ROWS) and _follows(rows, stop):
        stop += 1
    good, bad = start + 1, stop + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if _in_columns(rows[start:middle]):
            good = middle
        else:
            bad = middle
    while len(rows[good - 1]) < 2:
        good -= 1
    return good - start if good - start > 1 else 0


def tables_across(lines: Sequence[TextLine]) -> list[list[Row]]:
    """Tables as wide as the page, whatever order their cells are read in; turned text is none."""
    upright = [line for line in lines if not line.turn]
    order = rows_across([line.polygon for line in upright])
    rows = [[upright[index] for index in row] for row in order]
    return [rows[start : start + count] for start, count in table_runs(rows)]


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


def _in_columns(rows: Sequence[Row]) -> bool:
    places = _places(rows)
    return not any(len(set(row)) < len(row) for row in places) and _aligned(rows, places)


def _is_table(rows: Sequence[Row]) -> bool:
    """Whether rows whose cells are in columns are enough, and full enough, and no running text."""
    columns, places = len(columns_of(rows)), _places(rows)
    if columns < 2 or len(rows) < MIN_ROWS.get(columns, 2) or _is_running_text(rows, places):
        return False
    filled = sum(map(len, places))
    return filled >= MIN_FILLED_SHARE * columns * len(rows)


def _places(rows: Sequence[Row]) -> list[list[int]]:
    """The column of every cell."""
    columns = columns_of(rows)
    return [[_column(columns, line) for line in row] for row in rows]


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
