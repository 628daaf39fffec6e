"""Blocks of a page whose regions a layout model has told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from models.ocr.reading_order import rows_across
from models.page_formats.blocks import (
    Block,
    Kind,
    block_of,
    blocks_of_rows,
    body_height,
    table_block,
    text_blocks,
    title_level,
)
from models.page_formats.geometry import Box, box_of, printed_rows
from models.page_formats.table_cells import filled_cells, grid_of
from models.page_formats.tables import Row
from models.types.pages import Page, Region, TextLine

KINDS: dict[str, Kind] = {
    "text": "text",
    "title": "title",
    "figure": "image",
    "figure_caption": "caption",
    "table": "table",
    "table_caption": "caption",
    "header": "header",
    "footer": "footer",
    "reference": "references",
    "equation": "equation",
}
"""CDLA's labels, which are also those of PP-Structure."""
MIN_SHARE = 0.5
"""Of a line that lies in the region it belongs to."""
LEAST_TITLE_LEVEL = 3


def blocks_of(page: Page) -> list[Block]:
    """The page's blocks in reading order: by its regions, and by the shape of what lies in none.

    Text in pictures is text like any other, since it may be all that the page says.
    """
    if not page.regions:
        return blocks_of_rows(printed_rows(page))
    rows = printed_rows(page)
    body = body_height(rows)
    owners = {id(line): _owner(line, page.regions) for line in page.lines}
    blocks: list[Block] = []
    pending: list[Row] = []
    done: set[int] = set()
    for row in rows:
        for line in row:
            region = owners[id(line)]
            if region is not None and id(region) not in done:
                blocks += blocks_of_rows(pending, body)
                pending = []
                done.add(id(region))
                blocks += _region_blocks(region, _lines_of(region, rows, owners), body)
        rest = [line for line in row if owners[id(line)] is None]
        pending += [rest] if rest else []
    blocks += blocks_of_rows(pending, body)
    return _with_pictures(blocks, page.regions)


def _owner(line: TextLine, regions: Sequence[Region]) -> Region | None:
    """The region that has most of the line, if it has enough; pictures have no lines."""
    box = box_of(line.polygon)
    shares = [
        (_share(box, Box(*region.box)), -index)
        for index, region in enumerate(regions)
        if KINDS.get(region.label, "image") != "image"
    ]
    share, index = max(shares, default=(0.0, 0))
    return regions[-index] if share >= MIN_SHARE else None


def _share(line: Box, region: Box) -> float:
    width = min(line.right, region.right) - max(line.left, region.left)
    height = min(line.bottom, region.bottom) - max(line.top, region.top)
    return max(0.0, width) * max(0.0, height) / max(1.0, line.width * line.height)


def _lines_of(region: Region, rows: Sequence[Row], owners: dict[int, Region | None]) -> list[Row]:
    inside = [[line for line in row if owners[id(line)] is region] for row in rows]
    return [row for row in inside if row]


def _region_blocks(region: Region, rows: list[Row], body: float) -> list[Block]:
    kind, score = KINDS[region.label], region.confidence
    if kind == "text":
        return text_blocks(rows, body, confidence=score)
    if kind == "table":
        lines = [line for row in rows for line in row]
        order = rows_across([line.polygon for line in lines])
        table = [[lines[index] for index in row] for row in order]
        filled = filled_cells(region.cells, lines)
        if filled:
            block = block_of("table", table, cells=grid_of(filled), confidence=score)
            return [replace(block, spanning=tuple(filled))]
        if max(map(len, table)) > 1:
            return [table_block(table, score)]
        return text_blocks(rows, body)
    level = (title_level(rows, body) or LEAST_TITLE_LEVEL) if kind == "title" else 0
    return [block_of(kind, rows, level=level, confidence=score)]


def _with_pictures(blocks: list[Block], regions: Sequence[Region]) -> list[Block]:
    """Pictures before the first block that lies below their middle, in their column."""
    placed = list(blocks)
    figures = [region for region in regions if KINDS.get(region.label) == "image"]
    for region in sorted(figures, key=lambda region: region.box[1]):
        box = Box(*region.box)
        below = [
            index
            for index, block in enumerate(placed)
            if block.box.top >= box.middle[1]
            and min(block.box.right, box.right) > max(block.box.left, box.left)
        ]
        picture = Block("image", (), box, confidence=region.confidence)
        placed.insert(min(below, default=len(placed)), picture)
    return placed
