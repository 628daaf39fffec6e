"""Tesseract's TSV output: a row per word, with its block, paragraph and line."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from models.ocr.reading_order import Polygon
from models.types.pages import TextLine, Word

COLUMNS = 12
"""level, page, block, paragraph, line, word, left, top, width, height, confidence, text."""
WORD_LEVEL = "5"
MAX_GAP_HEIGHTS = 1.5
"""Between words, in heights of their line; more parts cells of a row, or two columns."""

_Row = tuple[tuple[str, ...], Word]
"""Which line it is of, and the word."""


def text_lines(table: str) -> list[TextLine]:
    """The lines with their words, cut at wide gaps; confidence is the mean of the words'."""
    rows = groupby(_words(table), key=lambda row: row[0])
    return [_line(words) for _, row in rows for words in _cut_at_gaps([word for _, word in row])]


def _cut_at_gaps(row: Sequence[Word]) -> list[list[Word]]:
    top, bottom = min(word.polygon[0][1] for word in row), max(word.polygon[2][1] for word in row)
    pieces = [[row[0]]]
    for before, word in pairwise(row):
        if word.polygon[0][0] - before.polygon[1][0] > MAX_GAP_HEIGHTS * (bottom - top):
            pieces.append([])
        pieces[-1].append(word)
    return pieces


def _words(table: str) -> Iterator[_Row]:
    for row in table.split("\n"):
        cells = row.split("\t", COLUMNS - 1)
        if len(cells) < COLUMNS or cells[0] != WORD_LEVEL or not cells[11].strip():
            continue
        left, top, width, height, confidence = map(float, cells[6:11])
        if confidence < 0:
            continue
        word = Word(cells[11].strip(), confidence / 100, _polygon(left, top, width, height))
        yield tuple(cells[1:5]), word


def _polygon(left: float, top: float, width: float, height: float) -> Polygon:
    right, bottom = left + width, top + height
    return (left, top), (right, top), (right, bottom), (left, bottom)


def _line(words: Sequence[Word]) -> TextLine:
    corners = [corner for word in words for corner in word.polygon]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    confidence = sum(word.confidence for word in words) / len(words)
    polygon = _polygon(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return TextLine(_joined(words), round(confidence, 5), polygon, words=tuple(words))


def _joined(words: Sequence[Word]) -> str:
    """With spaces, but not between the pieces of scripts that have none."""
    text = ""
    for word in words:
        gap = "" if not text or (_is_wide(text[-1]) and _is_wide(word.text[0])) else " "
        text += gap + word.text
    return text


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"
