"""Rows of cells to a matrix of features, by a schema that is fixed when a detector is fitted.

Columns of rows that name them are put in alphabetical order, so the order of keys never matters;
columns without names are called "0", "1", ….
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import cast, get_args

import numpy as np

from models.anomaly.columns import (
    ENCODINGS,
    MAX_MAGNITUDE,
    NUMBERS,
    PARAM,
    Column,
    Encoding,
    Matrix,
    learn,
    shown,
)
from models.errors import InvalidInputError
from models.types.anomaly import Cell, MissingPolicy, Row, Table

MISSING_POLICIES: tuple[MissingPolicy, ...] = get_args(MissingPolicy)


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

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Where the features of each column are."""
        ends = accumulate((len(column.features) for column in self.columns), initial=0)
        return tuple(slice(start, end) for start, end in pairwise(ends))

    def encode(self, table: Table) -> Matrix:
        """float64 [rows, features]. Raises InvalidInputError."""
        names = _names_of(table)
        self._check_names(table, names)
        if all(column.encoding == "numeric" for column in self.columns):
            numbers = _all_numbers(table.rows, len(names))
            if numbers is not None and len(self.features) == len(self.columns):
                places = [names.index(column.name) for column in self.columns]
                in_order = places == list(range(len(names)))
                return numbers if in_order else np.ascontiguousarray(numbers[:, places])
        cells = _columns_of(table)
        return np.ascontiguousarray(
            np.concatenate([column.encode(cells[column.name]) for column in self.columns], axis=1)
        )

    def typical(self, rows: Matrix) -> Matrix:
        """A row as the encoded training rows mostly are, float64 [features].

        The median of numbers, the most frequent category of the rest.
        """
        parts = [
            _typical(column, rows[:, block])
            for column, block in zip(self.columns, self.blocks, strict=True)
        ]
        return np.concatenate(parts)

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


def fit_encoder(
    table: Table,
    schema: Sequence[tuple[str, str]] | None,
    missing: MissingPolicy = "error",
) -> TableEncoder:
    """Learn the encoding of a table; columns that the schema leaves out are inferred.

    Raises InvalidInputError.
    """
    if missing not in MISSING_POLICIES:
        names = ", ".join(MISSING_POLICIES)
        raise InvalidInputError(f"'missing' must be one of {names}.", "missing")
    cells = _columns_of(table)
    wanted = dict(schema or ())
    for name, encoding in wanted.items():
        if name not in cells:
            raise InvalidInputError(f"The data has no column {shown(name)}.", "schema")
        if encoding not in ENCODINGS:
            raise InvalidInputError(f"There is no encoding {shown(encoding)}.", "schema")
    named = table.columns is not None
    columns = tuple(
        learn(name, cells[name], cast("Encoding | None", wanted.get(name)), missing)
        for name in (sorted(cells) if named else cells)
    )
    return TableEncoder(columns, named)


def _typical(column: Column, rows: Matrix) -> Matrix:
    if column.encoding in NUMBERS:
        return np.median(rows, axis=0)
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    return np.asarray(kinds[np.argmax(counts)], dtype=np.float64)


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
    """float64 [rows, width], or None when a cell is no finite number: the fast path."""
    if not set(map(type, chain.from_iterable(rows))) <= {float, int}:
        return None
    cells = cast("Iterable[float]", chain.from_iterable(rows))
    try:
        values = np.fromiter(cells, dtype=np.float64, count=len(rows) * width)
    except OverflowError:
        return None
    if not np.isfinite(values).all():
        return None
    return np.clip(values, -MAX_MAGNITUDE, MAX_MAGNITUDE).reshape(-1, width)


def _refuse_ragged(rows: Sequence[Row], width: int) -> None:
    index = next(index for index, row in enumerate(rows) if len(row) != width)
    raise InvalidInputError(
        f"Row {index} has {len(rows[index])} cells instead of {width}.", f"{PARAM}.{index}"
    )
