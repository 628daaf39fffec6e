"""OCR and documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]


PixelArray = npt.NDArray[np.uint8]
"""RGB, [height, width, 3]."""


@dataclass(frozen=True, slots=True)
class OcrRequest:
    """One page each: encoded images (PNG, JPEG, WebP, TIFF, BMP, GIF bytes), or pixels.

    `languages` as the client names them ("de", "deu", "zh-Hant"); empty: the engine's default.
    """

    images: tuple[bytes | PixelArray, ...]
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The id of a file that clients have uploaded; every replica can read it."""

    id: str


PageRanges = tuple[tuple[int, int], ...]
"""Pages by number from 0: (first, last), both included."""


@dataclass(frozen=True, slots=True)
class DocumentRequest:
    """A PDF file or an image, of which some pages are to be read.

    `pages` None: all. `dpi` is the resolution that PDF pages are rendered with. `force_ocr`: the
    text that a PDF file brings along is ignored. `param` is the wire name that errors of the file
    itself carry.
    """

    source: bytes | StoredFile
    dpi: int
    pages: PageRanges | None = None
    force_ocr: bool = False
    password: str | None = field(default=None, repr=False)
    languages: tuple[str, ...] = ()
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a line; `polygon` as that of the line."""

    text: str
    confidence: float
    polygon: tuple[Point, Point, Point, Point]


@dataclass(frozen=True, slots=True)
class TextLine:
    """`polygon`: corners clockwise from the top left, in pixels of the original image.

    `continues`: it stands on the same printed line as the entry before it, after a gap. `words`:
    of engines that locate them, all that the line has, in order. `turn`: the index of the corner
    of the polygon, and of those of its words, where the text has its top left one.
    """

    text: str
    confidence: float
    polygon: tuple[Point, Point, Point, Point]
    continues: bool = False
    words: tuple[Word, ...] = ()
    turn: int = 0


@dataclass(frozen=True, slots=True)
class TableCell:
    """A cell of a table's grid, rows and columns from 0; left, top, right, bottom in pixels."""

    row: int
    column: int
    row_span: int
    column_span: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a page of one kind, by the label of a layout model; left, top, right, bottom.

    `cells` of tables, where a model has told them.
    """

    label: str
    confidence: float
    box: tuple[float, float, float, float]
    cells: tuple[TableCell, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Lines in reading order; `width` and `height` in pixels. `regions` where layout is found."""

    width: int
    height: int
    lines: tuple[TextLine, ...]
    regions: tuple[Region, ...] = ()

    @property
    def text(self) -> str:
        pieces = ((" " if line.continues else "\n") + line.text for line in self.lines)
        return "".join(pieces)[1:]


@dataclass(frozen=True, slots=True)
class OcrResult:
    pages: tuple[Page, ...]


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """A page that has been read: `index` counts from 0 in its document.

    `dpi` is what it was rendered with, None for images. `text_layer`: the lines are the document's
    own text, not recognised.
    """

    index: int
    page: Page
    dpi: int | None = None
    text_layer: bool = False


DocumentTask = Literal["extraction", "vqa", "classification"]


@dataclass(frozen=True, slots=True)
class DocumentQuestions:
    """What a document model is asked about every page of a document; `questions` are of vqa."""

    task: DocumentTask
    questions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PageQuestions:
    """A page as the model wants it: what is written on it and where, how it looks, or both."""

    asked: DocumentQuestions
    page: Page | None = None
    pixels: PixelArray | None = None


@dataclass(frozen=True, slots=True)
class PageField:
    """A value found on a page, or the answer to a question, which is "" when there is none.

    `probability` is the model's. `box` (left, top, right, bottom in pixels) and the mean confidence
    of the words in it are those of models that tell places.
    """

    key: str
    value: str
    probability: float
    box: tuple[float, float, float, float] | None = None
    ocr_confidence: float | None = None


@dataclass(frozen=True, slots=True)
class PageAnswers:
    """What a document model says of the page `index`.

    `fields`: of an extraction, or one for each question. `data`: an extraction as nested JSON.
    `labels`: of a classification, with probabilities that sum to 1.
    """

    fields: tuple[PageField, ...] = ()
    data: Any = None
    labels: tuple[tuple[str, float], ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    index: int = 0
