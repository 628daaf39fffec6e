"""Which pages of a document: `[0, 2]`, or `"0-5"` and `"0,2-4"`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from models.errors import InvalidInputError
from models.types.pages import PageRanges

PARAM = "pages"
RANGES = re.compile(r"[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?){0,199}")


def parse_pages(pages: Sequence[int] | str) -> PageRanges:
    """Ranges in the order asked. Raises InvalidInputError for what names no pages."""
    if not isinstance(pages, str):
        if not pages or min(pages) < 0:
            raise InvalidInputError("Pages are numbers from 0.", PARAM)
        return tuple((page, page) for page in pages)
    text = pages.replace(" ", "")
    if not RANGES.fullmatch(text):
        raise InvalidInputError("Pages are numbers from 0, as in '0-5' or '0,2-4'.", PARAM)
    ranges = tuple(_range(part) for part in text.split(","))
    if any(first > last for first, last in ranges):
        raise InvalidInputError("The first page of a range comes before the last.", PARAM)
    return ranges


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def select_pages(ranges: PageRanges | None, page_count: int, max_pages: int) -> list[int]:
    """Page numbers, each once. A range may go beyond the last page, a single page may not.

    Raises InvalidInputError for a page that does not exist, and when there are too many.
    """
    wanted: dict[int, None] = {}
    for first, last in ((0, page_count - 1),) if ranges is None else ranges:
        if first >= page_count:
            raise InvalidInputError(
                f"There is no page {first}: the document has {page_count}, from 0.", PARAM
            )
        stop = min(last, page_count - 1, first + max_pages) + 1
        wanted.update(dict.fromkeys(range(first, stop)))
        if len(wanted) > max_pages:
            message = f"More than {max_pages} pages are asked for, which is the limit; "
            raise InvalidInputError(message + f"the document has {page_count}.", PARAM)
    return list(wanted)
