"""Rows of cells to a matrix of features, by a schema that is fixed when a detector is fitted.

Encodings: `numeric` as it is; `hash` to 0..999999; `label` to 1, 2, … in sorted order, 0 when
unknown; `onehot` to one feature per category, all 0 when unknown; `binary` to 0 or 1; `frequency`
to the share of training rows with that value, half the smallest share when unknown.

Columns of rows that name them are put in alphabetical order, so the order of keys never matters;
columns without names are called "0", "1", ….
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from models.errors import InvalidInputError
from models.types import Cell, Row, Table

Matrix = npt.NDArray[np.float64]
Encoding = Literal["numeric", "hash", "label", "onehot", "binary", "frequency"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

PARAM = "data"
MAX_MAGNITUDE = 1e30
"""Larger numbers are refused: some detectors compute in float32, others square."""
MAX_ONEHOT = 100
MAX_INFERRED_ONEHOT = 20
"""Text columns with more categories are encoded by frequency when no schema is given."""
HASH_CODES = 1_000_000
TRUE_WORDS = frozenset({"true", "yes", "1", "on", "t", "y"})
FALSE_WORDS = frozenset({"false", "no", "0", "off", "f", "n"})
SHOWN_CHARS = 64


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its encoding and what that learned from the training rows.

    `categories` are sorted; `shares` are theirs, for `frequency`.
    """

    name: str
    encoding: Encoding
    categories: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        if self.encoding == "onehot":
            return tuple(f"{self.name}={category}" for category in self.categories)
        return (self.name,)

    def encode(self, cells: Sequence[Cell]) -> Matrix:
        """float64 [len(cells), len(features)]. Raises InvalidInputError naming row and column."""
        return ENCODERS[self.encoding](self, cells)


@dataclass(frozen=True, slots=True)
class TableEncoder:
    """The columns of a fitted detector, in order; `named` when the rows had names for them."""

    columns: tuple[Column, ...]
    named: bool

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(chain.from_iterable(column.features for column in self.columns))

    @property
    def schema(self) -> tuple[tuple[str, str], ...]:
        return tuple((column.name, column.encoding) for column in self.columns)

    def encode(self, table: Table) -> Matrix:
        """float64 [rows, features]. Raises InvalidInputError."""
        names = _names_of(table)
        self._check_names(table, names)
        if all(column.encoding == "numeric" for column in self.columns):
            numbers = _all_numbers(table.rows, len(names))
            if numbers is not None:
                places = [names.index(column.name) for column in self.columns]
                in_order = places == list(range(len(names)))
                return numbers if in_order else np.ascontiguousarray(numbers[:, places])
        cells = _columns_of(table)
        return np.ascontiguousarray(
            np.concatenate([column.encode(cells[column.name]) for column in self.columns], axis=1)
        )

    def _check_names(self, table: Table, names: Sequence[str]) -> None:
        expected = [column.name for column in self.columns]
        if self.named and table.columns is None:
            raise InvalidInputError("The detector was fitted on rows with named columns.", PARAM)
        if not self.named and len(names) != len(expected):
            raise InvalidInputError(
                f"The rows have {len(names)} columns; the detector was fitted on {len(expected)}.",
                PARAM,
            )
        for name in sorted(set(expected) - set(names)):
            raise InvalidInputError(f"The column {shown(name)} is missing.", PARAM)
        for name in sorted(set(names) - set(expected)):
            raise InvalidInputError(f"The detector knows no column {shown(name)}.", PARAM)


def fit_encoder(table: Table, schema: Sequence[tuple[str, str]] | None) -> TableEncoder:
    """Learn the encoding of a table; columns that the schema leaves out are inferred.

    Raises InvalidInputError.
    """
    cells = _columns_of(table)
    wanted = dict(schema or ())
    for name, encoding in wanted.items():
        if name not in cells:
            raise InvalidInputError(f"The data has no column {shown(name)}.", "schema")
        if encoding not in ENCODINGS:
            raise InvalidInputError(f"There is no encoding {shown(encoding)}.", "schema")
    named = table.columns is not None
    columns = tuple(
        _learn(name, cells[name], cast("Encoding | None", wanted.get(name)), named)
        for name in (sorted(cells) if named else cells)
    )
    return TableEncoder(columns, named)


def shown(text: object) -> str:
    """A name from the request as a message shows it."""
    return repr(str(text)[:SHOWN_CHARS])


def _names_of(table: Table) -> tuple[str, ...]:
    """The columns' names. Raises InvalidInputError for no rows, no columns and ragged rows."""
    rows = table.rows
    if not rows:
        raise InvalidInputError("There are no rows.", PARAM)
    names = table.columns or tuple(str(index) for index in range(len(rows[0])))
    if not names:
        raise InvalidInputError("Row 0 has no cells.", f"{PARAM}.0")
    if len(set(names)) != len(names):
        raise InvalidInputError("Two columns have the same name.", PARAM)
    if set(map(len, rows)) != {len(names)}:
        _refuse_ragged(rows, len(names))
    return names


def _columns_of(table: Table) -> dict[str, tuple[Cell, ...]]:
    """Cells by column. Raises InvalidInputError as `_names_of`."""
    names = _names_of(table)
    return dict(zip(names, zip(*table.rows, strict=True), strict=True))


def _all_numbers(rows: Sequence[Row], width: int) -> Matrix | None:
    """float64 [rows, width], or None when a cell is not a number in bounds: the fast path."""
    if not set(map(type, chain.from_iterable(rows))) <= {float, int}:
        return None
    cells = cast("Iterable[float]", chain.from_iterable(rows))
    try:
        values = np.fromiter(cells, dtype=np.float64, count=len(rows) * width)
    except OverflowError:
        return None
    return values.reshape(-1, width) if (np.abs(values) <= MAX_MAGNITUDE).all() else None


def _refuse_ragged(rows: Sequence[Row], width: int) -> None:
    index = next(index for index, row in enumerate(rows) if len(row) != width)
    raise InvalidInputError(
        f"Row {index} has {len(rows[index])} cells instead of {width}.", f"{PARAM}.{index}"
    )


def _learn(name: str, cells: Sequence[Cell], encoding: Encoding | None, named: bool) -> Column:
    encoding = encoding or (_inferred(cells) if named else "numeric")
    if encoding in ("numeric", "hash", "binary"):
        return Column(name, encoding)
    counts = Counter(_texts(name, cells))
    if encoding == "onehot" and len(counts) > MAX_ONEHOT:
        raise InvalidInputError(
            f"The column {shown(name)} has {len(counts)} categories; "
            f"onehot takes at most {MAX_ONEHOT}.",
            "schema",
        )
    categories = tuple(sorted(counts))
    if encoding != "frequency":
        return Column(name, encoding, categories)
    shares = tuple(counts[category] / len(cells) for category in categories)
    return Column(name, encoding, categories, shares)


def _inferred(cells: Sequence[Cell]) -> Encoding:
    """By the first cell; the others are checked against it when they are encoded."""
    first = cells[0]
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
    if not (np.abs(values) <= MAX_MAGNITUDE).all():  # also false for NaN
        raise _first_fault(column.name, cells)
    return values[:, np.newaxis]


def _first_fault(name: str, cells: Sequence[Cell]) -> InvalidInputError:
    faults = ((row, _numeric_fault(cell)) for row, cell in enumerate(cells))
    return next(_fault(name, row, fault) for row, fault in faults if fault)


def _numeric_fault(cell: Cell) -> str | None:
    if cell is None:
        return "a value is missing"
    if type(cell) not in (float, int):
        return "a number is expected"
    if not isinstance(cell, str) and abs(cell) <= MAX_MAGNITUDE:
        return None
    return f"a number between -{MAX_MAGNITUDE:g} and {MAX_MAGNITUDE:g} is expected"


def _texts(name: str, cells: Sequence[Cell]) -> list[str]:
    """Each cell as the text that names its category; 1, 1.0 and "1" are one category."""
    for row, cell in enumerate(cells):
        fault = None if isinstance(cell, str | bool) else _numeric_fault(cell)
        if fault:
            raise _fault(name, row, fault)
    return [_text(cell) for cell in cells]


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
