"""Running heads and feet of a page, such as its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from models.page_formats.blocks import Block
from models.types.pages import Page

MARGIN_SHARE = 0.08
"""Of the page's height, in which heads and feet lie as a whole."""
MAX_ROWS = 2


def with_margins(blocks: Sequence[Block], page: Page) -> list[Block]:
    """The blocks, of which those that look like heads and feet are of that kind.

    Where a model has told heads or feet, its word is taken; a page of nothing else has none.
    """
    if any(block.kind in {"header", "footer"} for block in blocks):
        return list(blocks)
    marked = [_marked(block, page) for block in blocks]
    body = any(block.kind not in {"header", "footer"} for block in marked)
    return marked if body else list(blocks)


def _marked(block: Block, page: Page) -> Block:
    if block.kind not in {"text", "title"} or len(block.rows) > MAX_ROWS:
        return block
    if block.box.bottom <= MARGIN_SHARE * page.height:
        return replace(block, kind="header", level=0)
    if block.box.top >= (1 - MARGIN_SHARE) * page.height:
        return replace(block, kind="footer", level=0)
    return block
