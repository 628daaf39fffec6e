"""Tables whose cells a model has told: which words are in which cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import hypot

from models.page_formats.geometry import Box, box_of, words_of
from models.page_formats.tables import Cells
from models.types.pages import TableCell, TextLine

MAX_STRAY_SHARE = 0.2
"""Of the words: with more of them outside of all cells, the cells are not believed."""


@dataclass(frozen=True, slots=True)
class FilledCell:
    cell: TableCell
    text: str


def filled_cells(cells: Sequence[TableCell], lines: Sequence[TextLine]) -> list[FilledCell]:
    """The cells with their texts; none where the cells do not fit the words."""
    texts: list[list[str]] = [[] for _ in cells]
    stray, count = 0, 0
    for line in lines:
        for word in words_of(line):
            count += 1
            x, y = box_of(word.polygon).middle
            distances = [_distances(Box(*cell.box), x, y) for cell in cells]
            nearest = min(range(len(cells)), key=distances.__getitem__, default=None)
            if nearest is None:
                return []
            stray += distances[nearest][0] > 0
            texts[nearest].append(word.text)
    if stray > MAX_STRAY_SHARE * count:
        return []
    return [FilledCell(cell, " ".join(words)) for cell, words in zip(cells, texts, strict=True)]


def grid_of(cells: Sequence[FilledCell]) -> Cells:
    """Texts by rows and columns; what spans several stands in the first."""
    rows = 1 + max(cell.cell.row for cell in cells)
    columns = max(cell.cell.column + cell.cell.column_span for cell in cells)
    grid = [[""] * columns for _ in range(rows)]
    for cell in cells:
        grid[cell.cell.row][cell.cell.column] = cell.text
    return grid


def spanning_html(cells: Sequence[FilledCell]) -> str:
    rows: dict[int, list[str]] = {}
    for filled in cells:
        cell = filled.cell
        spans = f' rowspan="{cell.row_span}"' if cell.row_span > 1 else ""
        spans += f' colspan="{cell.column_span}"' if cell.column_span > 1 else ""
        rows.setdefault(cell.row, []).append(f"<td{spans}>{escape(filled.text)}</td>")
    return (
        "<table>" + "".join(f"<tr>{''.join(rows[row])}</tr>" for row in sorted(rows)) + "</table>"
    )


def _distances(box: Box, x: float, y: float) -> tuple[float, float]:
    """To the cell, 0 inside of it, and to its middle: cells may overlap a little."""
    across = max(box.left - x, 0.0, x - box.right)
    down = max(box.top - y, 0.0, y - box.bottom)
    middle = box.middle
    return max(across, down), hypot(middle[0] - x, middle[1] - y)
