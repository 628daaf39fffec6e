"""When a page's own text is trusted, and which pages a selection means."""

from __future__ import annotations

from typing import Any

import pytest

from models.documents.selection import parse_pages, select_pages
from models.documents.text_layer import MAX_LINES, Bounds, TextLayer, turn_of
from models.errors import InvalidInputError


def layer(*lines: str, unmapped: int = 0, pictures: float = 0.0) -> TextLayer:
    """One word per space-separated part, all on lines below each other."""
    boxes = [
        [(word, 100.0 * x, 20.0 * y, 100.0 * x + 90, 20.0 * y + 10) for x, word in enumerate(words)]
        for y, words in enumerate(line.split() for line in lines)
    ]
    return TextLayer(1000, 1000, boxes, unmapped, pictures)


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        (layer("Plain text"), True),
        (layer("日本語のテキスト"), True),
        (layer("7"), True),
        (layer(), False),
        (layer(""), False),
        (layer("\x01\x02\x03 \x04\x05"), False),
        (layer("\ue001\ue002\ue003"), False),
        (layer("\ufffd\ufffd but some text"), False),
        (layer("a lot of text and one \ufffd only, which is tolerable"), True),
        (layer("ABCDEFGHIJ", unmapped=1), True),
        (layer("ABCDEFGHIJ", unmapped=2), False),
        (layer("Page 1", pictures=0.9), False),
        (layer("word " * 30, pictures=0.9), True),
        (layer("Figure 1", pictures=0.3), True),
        (layer(*["x"] * (MAX_LINES + 1)), False),
    ],
    ids=lambda value: None,
)
def test_what_is_usable(text: TextLayer, usable: bool) -> None:
    assert text.usable is usable


def test_lines_have_words_and_the_outline_of_all() -> None:
    page = layer("two words", "below").page()
    assert page.text == "two words\nbelow"
    first = page.lines[0]
    assert first.polygon == ((0, 0), (190, 0), (190, 10), (0, 10))
    assert [(word.text, word.confidence) for word in first.words] == [("two", 1), ("words", 1)]
    assert first.words[1].polygon[0] == (100, 0)


@pytest.mark.parametrize(
    ("pages", "selected"),
    [
        ([0, 2], [0, 2]),
        ([2, 0, 2], [2, 0]),
        ("3", [3]),
        ("0-2", [0, 1, 2]),
        (" 4, 1-2 ", [4, 1, 2]),
        ("1-3,2-4", [1, 2, 3, 4]),
        ("3-999999", [3, 4]),
    ],
)
def test_pages_by_number(pages: Any, selected: list[int]) -> None:
    assert select_pages(parse_pages(pages), 5, max_pages=5) == selected


@pytest.mark.parametrize(
    "pages",
    [[], [-1], "", "-", "1-", "-1", "a", "0-1-2", "1;2", "2-1", "1.5", "٣", "9" * 7, "1," * 300],
)
def test_what_names_no_pages(pages: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_pages(pages)
    assert caught.value.param == "pages"


def test_all_pages_when_none_are_named() -> None:
    assert select_pages(None, 3, max_pages=3) == [0, 1, 2]
    with pytest.raises(InvalidInputError, match="the document has 4"):
        select_pages(None, 4, max_pages=3)


def test_a_page_named_often_counts_once() -> None:
    assert select_pages(parse_pages([1] * 100), 3, max_pages=1) == [1]


@pytest.mark.parametrize(
    ("last", "turn"),
    [
        ((0, 0, 5, 10), 0),
        ((90, 3, 95, 13), 0),
        ((5, -4, 8, 3), 0),  # an exponent
        ((0, 90, 5, 100), 1),
        ((1, -90, 6, -80), 3),
    ],
)
def test_lines_are_turned_as_their_ends_say(last: Bounds, turn: int) -> None:
    assert turn_of((0, 0, 5, 10), last) == turn
    page = TextLayer(99, 99, [[("ab", 0, 0, 9, 9)]], 0, 0, [((0, 0, 5, 10), last)]).page()
    assert page.lines[0].turn == turn
