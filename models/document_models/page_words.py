"""The words of a page and where they stand, as the LayoutLM family wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from models.page_formats.geometry import Box, around, box_of, words_of
from models.types.pages import Page, PageField

SCALE = 1000
"""The family's pages are so wide and so high."""
Place = tuple[int, int, int, int]
NOWHERE: Place = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class PageWord:
    """`box` in pixels; `place` (left, top, right, bottom) on the family's page."""

    text: str
    confidence: float
    box: Box
    place: Place


def page_words(page: Page) -> list[PageWord]:
    """In reading order."""
    words = [word for line in page.lines for word in words_of(line)]
    return [
        PageWord(word.text, word.confidence, box, _place(box, page))
        for word, box in ((word, box_of(word.polygon)) for word in words)
    ]


def joined(key: str, probability: float, words: Sequence[PageWord]) -> PageField:
    """Neighbouring words as one value."""
    return PageField(
        key,
        " ".join(word.text for word in words),
        probability,
        around(word.box for word in words),
        fmean(word.confidence for word in words),
    )


def _place(box: Box, page: Page) -> Place:
    left, right = (_scaled(value, page.width) for value in (box.left, box.right))
    top, bottom = (_scaled(value, page.height) for value in (box.top, box.bottom))
    return left, top, right, bottom


def _scaled(value: float, whole: int) -> int:
    return min(SCALE, max(0, int(SCALE * value / whole)))
