"""One column of cells to features: encodings, and what stands for missing cells.

Encodings: `numeric` as it is; `hash` to 0..999999; `label` to 1, 2, … in sorted order, 0 when
unknown; `onehot` to one feature per category, all 0 when unknown; `binary` to 0 or 1; `frequency`
to the share of training rows with that value, half the smallest share when unknown.

A missing cell is None. By policy it is refused (`error`), or what the training rows say (`mean`
and `median` of numbers, the most frequent category for both), or `zero` in every feature, or a
`category` of its own: of numbers, the median and a feature that is 1 where the number is missing.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from models.errors import InvalidInputError
from models.types.anomaly import Cell, MissingPolicy

Matrix = npt.NDArray[np.float64]
Encoding = Literal["numeric", "hash", "label", "onehot", "binary", "frequency"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
NUMBERS: tuple[Encoding, ...] = ("numeric", "binary")

PARAM = "data"
MAX_MAGNITUDE = 1e30
"""Numbers beyond count as this: some detectors compute in float32, others square."""
MAX_ONEHOT = 100
MAX_INFERRED_ONEHOT = 20
"""Text columns with more categories are encoded by frequency when no schema is given."""
HASH_CODES = 1_000_000
TRUE_WORDS = frozenset({"true", "yes", "1", "on", "t", "y"})
FALSE_WORDS = frozenset({"false", "no", "0", "off", "f", "n"})
MISSING = "(missing)"
"""The category of missing cells, and the name of the feature that marks missing numbers."""
SHOWN_CHARS = 64


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its encoding and what that learned from the training rows.

    `categories` are sorted; `shares` are theirs, for `frequency`. `fill` stands for a missing
    number, as a feature; `fill_category` for a missing category.
    """

    name: str
    encoding: Encoding
    categories: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    missing: MissingPolicy = "error"
    fill: float = 0.0
    fill_category: str = MISSING

    @property
    def features(self) -> tuple[str, ...]:
        if self.encoding == "onehot":
            return tuple(f"{self.name}={category}" for category in self.categories)
        return (self.name, f"{self.name}={MISSING}") if self._marks_gaps else (self.name,)

    @property
    def _marks_gaps(self) -> bool:
        return self.missing == "category" and self.encoding in NUMBERS

    def encode(self, cells: Sequence[Cell]) -> Matrix:
        """float64 [len(cells), len(features)]. Raises InvalidInputError naming row and column."""
        gaps = [] if self.missing == "error" else _gaps(cells)
        if gaps:
            cells = self._filled(cells)
        encoded = ENCODERS[self.encoding](self, cells)
        if self.encoding in NUMBERS:
            encoded[gaps] = self.fill
        elif self.missing == "zero":
            encoded[gaps] = 0.0
        if not self._marks_gaps:
            return encoded
        marks = np.zeros((len(cells), 1))
        marks[gaps] = 1.0
        return np.concatenate([encoded, marks], axis=1)

    def _filled(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells with something that can be encoded where there is nothing."""
        fill: Cell = self.fill_category
        if self.encoding in NUMBERS:
            fill = 0.0
        return [fill if cell is None else cell for cell in cells]


def learn(
    name: str, cells: Sequence[Cell], encoding: Encoding | None, missing: MissingPolicy
) -> Column:
    """The column as these training cells define it. Raises InvalidInputError."""
    encoding = encoding or _inferred(cells)
    known = cells if missing == "error" else [cell for cell in cells if cell is not None]
    if missing in ("mean", "median") and not known:
        raise InvalidInputError(f"The column {shown(name)} has no values.", PARAM)
    if encoding in NUMBERS:
        fill = _number_for_gaps(name, encoding, cells, missing)
        return Column(name, encoding, missing=missing, fill=fill)
    fill_category = MISSING
    if missing in ("mean", "median"):
        fill_category = _most_frequent(_texts(name, cells, gaps_ok=True))
    if encoding == "hash":
        return Column(name, encoding, missing=missing, fill_category=fill_category)
    return _with_categories(Column(name, encoding, (), (), missing, 0.0, fill_category), cells)


def _with_categories(column: Column, cells: Sequence[Cell]) -> Column:
    """The column with the categories of its training cells, and their shares."""
    name, encoding, missing = column.name, column.encoding, column.missing
    if missing == "zero":
        texts = _texts(name, cells, gaps_ok=True)
    else:
        texts = _texts(name, cells if missing == "error" else column._filled(cells))
    counts = Counter(texts)
    if encoding == "onehot" and len(counts) > MAX_ONEHOT:
        raise InvalidInputError(
            f"The column {shown(name)} has {len(counts)} categories; "
            f"onehot takes at most {MAX_ONEHOT}.",
            "schema",
        )
    categories = tuple(sorted(counts)) or (MISSING,)
    shares: tuple[float, ...] = ()
    if encoding == "frequency":
        shares = tuple((counts[category] or len(cells)) / len(cells) for category in categories)
    return Column(name, encoding, categories, shares, missing, fill_category=column.fill_category)


def shown(text: object) -> str:
    """A name from the request as a message shows it."""
    return repr(str(text)[:SHOWN_CHARS])


def _gaps(cells: Sequence[Cell]) -> list[int]:
    return [row for row, cell in enumerate(cells) if cell is None]


def _number_for_gaps(
    name: str, encoding: Encoding, cells: Sequence[Cell], missing: MissingPolicy
) -> float:
    """Raises InvalidInputError for cells that are neither missing nor a number."""
    if missing in ("error", "zero"):
        return 0.0
    features = Column(name, encoding, missing="zero").encode(cells)[:, 0]
    known = features[[cell is not None for cell in cells]]
    if not len(known):
        return 0.0
    return float(known.mean() if missing == "mean" else np.median(known))


def _most_frequent(texts: Sequence[str]) -> str:
    """The first in sorted order among equals."""
    counts = Counter(texts)
    return min(counts, key=lambda text: (-counts[text], text))


def _inferred(cells: Sequence[Cell]) -> Encoding:
    """By the first cell that is not missing; the others are checked when they are encoded."""
    first = next((cell for cell in cells if cell is not None), None)
    if isinstance(first, bool):
        return "binary"
    if not isinstance(first, str):
        return "numeric"
    return "onehot" if len(set(cells)) <= MAX_INFERRED_ONEHOT else "frequency"


def _fault(name: str, row: int, fault: str) -> InvalidInputError:
    return InvalidInputError(f"Row {row}, column {shown(name)}: {fault}.", f"{PARAM}.{row}")


def _numeric(column: Column, cells: Sequence[Cell]) -> Matrix:
    if not set(map(type, cells)) <= {float, int}:
        raise _first_fault(column.name, cells)
    try:
        values = np.array(cells, dtype=np.float64)
    except OverflowError:
        raise _first_fault(column.name, cells) from None
    if not np.isfinite(values).all():
        raise _first_fault(column.name, cells)
    return np.clip(values, -MAX_MAGNITUDE, MAX_MAGNITUDE)[:, np.newaxis]


def _first_fault(name: str, cells: Sequence[Cell]) -> InvalidInputError:
    faults = ((row, _numeric_fault(cell)) for row, cell in enumerate(cells))
    return next(_fault(name, row, fault) for row, fault in faults if fault)


def _numeric_fault(cell: Cell) -> str | None:
    if cell is None:
        return "a value is missing"
    if type(cell) not in (float, int):
        return "a number is expected"
    return None if is_finite(cast("float", cell)) else "a finite number is expected"


def is_finite(number: float) -> bool:
    """Whether float64 can hold it."""
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond float64
        return False


def _texts(name: str, cells: Sequence[Cell], gaps_ok: bool = False) -> list[str]:
    """Each cell as the text that names its category; 1, 1.0 and "1" are one category.

    `gaps_ok` leaves missing cells out.
    """
    texts = []
    for row, cell in enumerate(cells):
        if cell is None and gaps_ok:
            continue
        fault = None if isinstance(cell, str | bool) else _numeric_fault(cell)
        if fault:
            raise _fault(name, row, fault)
        texts.append(_text(cell))
    return texts


def _text(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _hash(column: Column, cells: Sequence[Cell]) -> Matrix:
    return _mapped(_texts(column.name, cells), _hash_code)


def _hash_code(text: str) -> float:
    digest = hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return float(int.from_bytes(digest, "big") % HASH_CODES)


def _label(column: Column, cells: Sequence[Cell]) -> Matrix:
    codes = {category: code for code, category in enumerate(column.categories, 1)}
    return _mapped(_texts(column.name, cells), lambda text: codes.get(text, 0))


def _onehot(column: Column, cells: Sequence[Cell]) -> Matrix:
    places = {category: place for place, category in enumerate(column.categories)}
    encoded = np.zeros((len(cells), len(places)))
    for row, text in enumerate(_texts(column.name, cells)):
        if text in places:
            encoded[row, places[text]] = 1.0
    return encoded


def _binary(column: Column, cells: Sequence[Cell]) -> Matrix:
    words = [text.strip().lower() for text in _texts(column.name, cells)]
    for row, word in enumerate(words):
        if word not in TRUE_WORDS and word not in FALSE_WORDS:
            raise _fault(column.name, row, "true or false is expected")
    return _mapped(words, lambda word: word in TRUE_WORDS)


def _frequency(column: Column, cells: Sequence[Cell]) -> Matrix:
    shares = dict(zip(column.categories, column.shares, strict=True))
    unknown = min(column.shares) / 2
    return _mapped(_texts(column.name, cells), lambda text: shares.get(text, unknown))


def _mapped(texts: Sequence[str], code: Callable[[str], float]) -> Matrix:
    return np.array([code(text) for text in texts], dtype=np.float64)[:, np.newaxis]


ENCODERS: Mapping[Encoding, Callable[[Column, Sequence[Cell]], Matrix]] = {
    "numeric": _numeric,
    "hash": _hash,
    "label": _label,
    "onehot": _onehot,
    "binary": _binary,
    "frequency": _frequency,
}
