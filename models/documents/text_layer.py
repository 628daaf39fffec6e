"""A page's own text: whether to trust it, and its lines as those of a recogniser."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat

from models.ocr.reading_order import Polygon, reading_lines
from models.types.pages import Page, TextLine, Word

MAX_MEANINGLESS_SHARE = 0.1
MEANINGLESS = {"Cc", "Cn", "Co", "Cs"}
"""Unicode's categories of control, unassigned, private and surrogate characters."""
SCAN_SHARE = 0.5
SCAN_CHARACTERS = 100
"""A page that pictures cover for the most part is a scan; a stamp or a number on it, of fewer
characters, is not its text."""
MAX_LINES = 3000
STEEP = 4
"""Times as far down as across: more than from a letter to its exponent."""

Bounds = tuple[float, float, float, float]
OwnWord = tuple[str, float, float, float, float]
"""Text; left, top, right and bottom in pixels of the rendered page."""


@dataclass(frozen=True, slots=True)
class TextLayer:
    """What a file says of one page. `unmapped`: characters of fonts that do not say what they mean;
    `pictures`: the share of the page that they cover; `ends`: the bounds of the first and the last
    character of each line."""

    width: int
    height: int
    lines: Sequence[Sequence[OwnWord]]
    unmapped: int
    pictures: float
    ends: Sequence[tuple[Bounds, Bounds]] = ()

    @property
    def usable(self) -> bool:
        letters = "".join(word[0] for line in self.lines for word in line)
        if not letters or len(self.lines) > MAX_LINES:
            return False
        if self.pictures >= SCAN_SHARE and len(letters) < SCAN_CHARACTERS:
            return False
        strange = sum(map(_is_meaningless, letters))
        return max(strange, self.unmapped) <= MAX_MEANINGLESS_SHARE * len(letters)

    def page(self) -> Page:
        """The lines in reading order, of confidence 1."""
        turns = chain((turn_of(*ends) for ends in self.ends), repeat(0))
        lines = [_text_line(*line) for line in zip(self.lines, turns, strict=False) if line[0]]
        ordered = [
            replace(lines[index], continues=position > 0)
            for printed in reading_lines([line.polygon for line in lines])
            for position, index in enumerate(printed)
        ]
        return Page(self.width, self.height, tuple(ordered))


def turn_of(first: Bounds, last: Bounds) -> int:
    """How the text of a line runs: 0 to a side, 1 downwards, 3 upwards; see `TextLine.turn`."""
    across = abs(last[0] + last[2] - first[0] - first[2])
    down = last[1] + last[3] - first[1] - first[3]
    if abs(down) <= STEEP * across:
        return 0
    return 1 if down > 0 else 3


def _is_meaningless(character: str) -> bool:
    return character == "\ufffd" or unicodedata.category(character) in MEANINGLESS


def _text_line(own: Sequence[OwnWord], turn: int) -> TextLine:
    words = tuple(Word(text, 1.0, _corners(*box)) for text, *box in own)
    _, lefts, tops, rights, bottoms = zip(*own, strict=True)
    outline = _corners(min(lefts), min(tops), max(rights), max(bottoms))
    text = " ".join(word.text for word in words)
    return TextLine(text, 1.0, outline, words=words, turn=turn)


def _corners(left: float, top: float, right: float, bottom: float) -> Polygon:
    return (left, top), (right, top), (right, bottom), (left, bottom)
