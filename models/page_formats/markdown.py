"""Pages as markdown: titles, paragraphs, lists, tables, one below the other as they are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from models.page_formats.blocks import Block, block_text, list_mark, without_mark
from models.page_formats.regions import blocks_of
from models.page_formats.tables import markdown_table
from models.types.pages import Page

GAP = "\n\n"
MARKUP = re.compile(r"^(#{1,6}\s|>|```|~~~|\+\s|[-=*_][-=*_\s]*$)")
"""What a line of a paragraph must not begin with, or be: a row of dashes makes a title of the line
above it."""


def page_markdown(page: Page) -> str:
    return blocks_markdown(blocks_of(page))


def blocks_markdown(blocks: Sequence[Block], write: Callable[[Block], str] | None = None) -> str:
    """Blocks with an empty line between; those that `write` makes nothing of are left out."""
    texts = map(write or block_markdown, blocks)
    return GAP.join(text for text in texts if text)


def block_markdown(block: Block) -> str:
    if block.kind == "title":
        return "#" * block.level + " " + block_text(block).replace("\n", " ")
    if block.kind == "list":
        return _list(block)
    if block.kind == "table" and block.cells:
        return markdown_table(block.cells)
    return "\n".join(MARKUP.sub(r"\\\1", line, count=1) for line in block_text(block).split("\n"))


def _list(block: Block) -> str:
    """Rows without a mark go on with the item above them."""
    lines = []
    for row in block_text(block).split("\n"):
        mark = list_mark(row)
        lines.append(mark + without_mark(row) if mark else "  " + row)
    return "\n".join(lines)
