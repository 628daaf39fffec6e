"""Tab-separated values with the columns of tesseract's: a row for every page, block, line, word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from models.page_formats.geometry import Box, around, box_of, rounded, words_of
from models.page_formats.regions import blocks_of
from models.types.pages import DocumentPage, Page

COLUMNS = (
    "level",
    "page_num",
    "block_num",
    "par_num",
    "line_num",
    "word_num",
    "left",
    "top",
    "width",
    "height",
    "conf",
    "text",
)


def tsv(pages: Sequence[DocumentPage]) -> str:
    """Levels: 1 page, 2 block, 3 paragraph, 4 line, 5 word; only words have a confidence."""
    rows = (row for page in pages for row in _page(page))
    return "\t".join(COLUMNS) + "\n" + "".join("\t".join(row) + "\n" for row in rows)


def _page(document_page: DocumentPage) -> Iterator[list[str]]:
    page, number = document_page.page, document_page.index + 1
    yield _row(page, (1, number, 0, 0, 0, 0), Box(0, 0, page.width, page.height))
    for block_number, block in enumerate(blocks_of(page), 1):
        yield _row(page, (2, number, block_number, 0, 0, 0), block.box)
        yield _row(page, (3, number, block_number, 1, 0, 0), block.box)
        for line_number, row in enumerate(block.rows, 1):
            place = (number, block_number, 1, line_number)
            box = around(box_of(line.polygon) for line in row)
            yield _row(page, (4, *place, 0), box)
            words = (word for line in row for word in words_of(line))
            for word_number, word in enumerate(words, 1):
                values = (f"{100 * word.confidence:.6f}", " ".join(word.text.split()))
                yield _row(page, (5, *place, word_number), box_of(word.polygon), values)


def _row(
    page: Page, numbers: tuple[int, ...], box: Box, values: tuple[str, str] = ("-1", "")
) -> list[str]:
    left, top, right, bottom = rounded(box, page)
    return [*map(str, (*numbers, left, top, right - left, bottom - top)), *values]
