"""Lines of text between the networks of a recogniser: found on a page, cut out, read, placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from models.ocr.reading_order import Polygon, reading_lines
from models.types.pages import Page, PixelArray, Point, TextLine, Word

UPRIGHT_ASPECT = 1.5
"""Boxes this many times as high as wide hold text that runs downwards (PP-OCR's rule)."""

Corners = npt.NDArray[np.float32]
"""[4, 2], clockwise from the top left."""


@dataclass(frozen=True, slots=True)
class FoundLine:
    """A line cut out so that it reads from left to right.

    `turn` is the index of the polygon's corner where the crop has its top left one.
    """

    polygon: Polygon
    crop: PixelArray
    turn: int = 0

    def turned(self) -> FoundLine:
        """The same, read upside down."""
        crop = np.ascontiguousarray(self.crop[::-1, ::-1])
        return FoundLine(self.polygon, crop, (self.turn + 2) % 4)


@dataclass(frozen=True, slots=True)
class WordSpan:
    """A word and where it is in its line: from `start` to `end` as shares of the width."""

    text: str
    confidence: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class ReadLine:
    """What a network read in one crop; no `words` when it does not place them."""

    text: str
    confidence: float
    words: tuple[WordSpan, ...] = ()


def cut_out(page: PixelArray, box: Corners) -> tuple[PixelArray, int]:
    """The pixels inside a box, straightened, with the corner that became the top left one.

    As PP-OCR does it: bicubic, and text that runs downwards is laid on its side.
    """
    edges = np.linalg.norm(box - np.roll(box, -1, axis=0), axis=1)
    width, height = max(1, int(max(edges[0], edges[2]))), max(1, int(max(edges[1], edges[3])))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    crop = cv2.warpPerspective(
        page,
        cv2.getPerspectiveTransform(box.astype(np.float32), target),
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if height / width >= UPRIGHT_ASPECT:
        return np.ascontiguousarray(np.rot90(crop), dtype=np.uint8), 1
    return np.asarray(crop, dtype=np.uint8), 0


def page_of(
    width: int,
    height: int,
    found: Sequence[FoundLine],
    read: Sequence[ReadLine],
    min_confidence: float,
) -> Page:
    """The lines that have text and are sure enough, in reading order."""
    lines = [
        _placed(line, text)
        for line, text in zip(found, read, strict=True)
        if text.text.strip() and text.confidence >= min_confidence
    ]
    return in_reading_order(width, height, lines)


def in_reading_order(width: int, height: int, lines: Sequence[TextLine]) -> Page:
    ordered = [
        replace(lines[index], continues=position > 0)
        for printed in reading_lines([line.polygon for line in lines])
        for position, index in enumerate(printed)
    ]
    return Page(width, height, tuple(ordered))


def _placed(line: FoundLine, read: ReadLine) -> TextLine:
    words = tuple(
        Word(word.text, word.confidence, _part(line, word.start, word.end)) for word in read.words
    )
    text, polygon = read.text.strip(), line.polygon
    return TextLine(text, read.confidence, polygon, words=words, turn=line.turn)


def _part(line: FoundLine, start: float, end: float) -> Polygon:
    """The part of a line's polygon between two shares of the way along its text."""
    corners = [line.polygon[(line.turn + index) % 4] for index in range(4)]
    top_left, top_right, bottom_right, bottom_left = corners
    part = (
        _between(top_left, top_right, start),
        _between(top_left, top_right, end),
        _between(bottom_left, bottom_right, end),
        _between(bottom_left, bottom_right, start),
    )
    first, second, third, fourth = (part[(index - line.turn) % 4] for index in range(4))
    return first, second, third, fourth


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
