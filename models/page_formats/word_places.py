"""Where the words of a page stand in its markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from models.page_formats.blocks import Block
from models.page_formats.geometry import words_of
from models.page_formats.markdown import GAP, block_markdown
from models.types.pages import Word


def word_places(
    blocks: Sequence[Block], write: Callable[[Block], str] = block_markdown
) -> Iterator[tuple[Word, int]]:
    """Words with the index of their first character in `blocks_markdown(blocks, write)`.

    Words that are not written, such as the bullets of a list, are left out.
    """
    start = 0
    for block in blocks:
        text = write(block)
        for word, place in _in_block(block, text):
            yield word, start + place
        start += len(text) + len(GAP) if text else 0


def _in_block(block: Block, text: str) -> Iterator[tuple[Word, int]]:
    place = 0
    for word in (word for line in block.lines for word in words_of(line)):
        forms = (word.text, word.text.replace("|", "\\|"))
        found, length = next(
            ((text.find(form, place), len(form)) for form in forms if form in text[place:]), (-1, 0)
        )
        if found >= 0:
            yield word, found
            place = found + length
