"""Finding a value on the pages that it was read from.

Texts are compared without case, accents of width, punctuation and spaces; a number matches what is
printed with any separators. Where the same stands in several places, that beside the field's name
wins, then the first that no other field has taken.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from models.page_fields.json_leaves import Scalar
from models.page_fields.printed_numbers import numbers_in
from models.page_formats.geometry import Box, around, box_of, printed_rows, words_of
from models.types.pages import DocumentPage, Word

MIN_SIMILARITY = 0.8
"""Of the pairs of letters that two texts have, the share that is common (Dice)."""
MIN_FUZZY_CHARS = 5
MAX_FUZZY_CHARS = 200
MAX_FUZZY_WORDS = 300_000
"""That are looked at for all values together: the rest are found exactly or not at all."""
MAX_NUMBER_WORDS = 3
"""Numbers whose groups are parted by spaces are as many words."""


@dataclass(frozen=True, slots=True)
class Place:
    """Words of one page; `confidence` is that of their recognition."""

    page: int
    box: Box
    confidence: float
    text: str


@dataclass(frozen=True, slots=True)
class _Word:
    word: Word
    page: int
    row: int
    letters: str


@dataclass(frozen=True, slots=True)
class _Match:
    start: int
    stop: int
    similarity: float


class PageWords:
    """The words of some pages, in which values are looked up one after the other."""

    def __init__(self, pages: Sequence[DocumentPage]) -> None:
        self._words: list[_Word] = []
        self._rows: list[set[str]] = []
        for page in pages:
            for row in printed_rows(page.page):
                words = [word for line in row for word in words_of(line)]
                found = [_Word(w, page.index, len(self._rows), letters_of(w.text)) for w in words]
                self._rows.append({word.letters for word in found})
                self._words += [word for word in found if word.letters]
        self._letters, self._starts = _joined(self._words)
        self._taken: set[tuple[int, int]] = set()
        self._fuzzy_words = 0

    def find(self, value: Scalar, key: str = "") -> Place | None:
        """Where the value stands; None for what is not found, and for booleans and null."""
        if value is None or isinstance(value, bool):
            return None
        if isinstance(value, str):
            matches = list(self._texts(letters_of(value)))
        else:
            matches = list(self._numbers(_float(value)))
        if not matches:
            return None
        names = set(re.findall(r"\w{2,}", key.replace("_", " ").casefold()))
        best = max(matches, key=lambda match: self._rank(match, names))
        self._taken.add((best.start, best.stop))
        words = [word.word for word in self._words[best.start : best.stop]]
        return Place(
            self._words[best.start].page,
            around(box_of(word.polygon) for word in words),
            fmean(word.confidence for word in words),
            " ".join(word.text for word in words),
        )

    def _rank(self, match: _Match, names: set[str]) -> tuple[float, int, bool, int]:
        row = self._words[match.start].row
        beside = len(names & self._rows[row])
        free = (match.start, match.stop) not in self._taken
        return match.similarity, beside, free, -match.start

    def _texts(self, wanted: str) -> Iterator[_Match]:
        if not wanted:
            return
        exact = list(self._exact(wanted))
        yield from exact or self._similar(wanted)

    def _exact(self, wanted: str) -> Iterator[_Match]:
        """Whole words of one page whose letters are these."""
        place = self._letters.find(wanted)
        while place >= 0:
            start = self._starts.get(place)
            stop = self._starts.get(place + len(wanted))
            if start is not None and stop is not None:
                yield _Match(start, stop, 1.0)
            place = self._letters.find(wanted, place + 1)

    def _similar(self, wanted: str) -> Iterator[_Match]:
        if not MIN_FUZZY_CHARS <= len(wanted) <= MAX_FUZZY_CHARS:
            return
        self._fuzzy_words += len(self._words)
        if self._fuzzy_words > MAX_FUZZY_WORDS:
            return
        pairs = _pairs(wanted)
        lengths = range(int(MIN_SIMILARITY * len(wanted)), int(len(wanted) / MIN_SIMILARITY) + 1)
        for start, first in enumerate(self._words):
            if not pairs.isdisjoint(_pairs(first.letters)):
                yield from self._similar_from(start, pairs, lengths)

    def _similar_from(self, start: int, wanted: set[str], lengths: range) -> Iterator[_Match]:
        """Neighbouring words of one page from this one on, whose letters together are so many."""
        unlike = 2 * len(wanted) * (1 / MIN_SIMILARITY - 1)  # with more pairs of others, none is
        seen: set[str] = set()
        size = common = 0
        last = ""
        for stop in range(start, len(self._words)):
            word = self._words[stop]
            size += len(word.letters)
            if word.page != self._words[start].page or size >= lengths.stop:
                return
            added = _pairs(last + word.letters) - seen
            seen |= added
            common += len(added & wanted)
            last = word.letters[-1]
            if len(seen) - common > unlike:
                return
            similarity = 2 * common / (len(wanted) + len(seen))
            if size in lengths and similarity >= MIN_SIMILARITY:
                yield _Match(start, stop + 1, similarity)

    def _numbers(self, wanted: float) -> Iterator[_Match]:
        for start, first in enumerate(self._words):
            if not any(character.isdigit() for character in first.letters):
                continue
            stops = range(start + 1, min(len(self._words), start + MAX_NUMBER_WORDS) + 1)
            for stop in stops:
                words = self._words[start:stop]
                if words[-1].row != first.row:
                    break
                if wanted in numbers_in(" ".join(word.word.text for word in words)):
                    yield _Match(start, stop, 1.0)
                    break


def letters_of(text: str) -> str:
    """Letters and digits only, in one case, compatible forms alike."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def _pairs(letters: str) -> set[str]:
    return {letters[index : index + 2] for index in range(len(letters) - 1)} or {letters}


def _joined(words: Sequence[_Word]) -> tuple[str, dict[int, int]]:
    """The letters of all words, pages parted by a line break, and the number of the word that each
    place is the beginning of, or the end of the one before it."""
    parts: list[str] = []
    starts: dict[int, int] = {}
    place = 0
    for index, word in enumerate(words):
        starts[place] = index
        if index and word.page != words[index - 1].page:
            parts.append("\n")
            place += 1
            starts[place] = index
        parts.append(word.letters)
        place += len(word.letters)
    starts[place] = len(words)
    return "".join(parts), starts


def _float(value: float) -> float:
    """NaN, which equals nothing, for an integer that no printed number reaches."""
    try:
        return float(value)
    except OverflowError:
        return math.nan
