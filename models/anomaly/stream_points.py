"""What a request says of a streaming detector, against what the detector was created with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from models.anomaly.backends_table import (
    AUTO,
    AUTO_INFO,
    DESCRIPTIONS,
    backend_name,
    checked_parameters,
)
from models.anomaly.columns import is_finite, shown
from models.anomaly.stream_features import with_features
from models.anomaly.stream_state import Stream
from models.errors import InvalidInputError
from models.types.anomaly import Cell, Row, StreamRequest, StreamSettings, Table


def check_settings(settings: StreamSettings) -> None:
    """Raises InvalidInputError for settings by which no window could ever be fitted."""
    if settings.min_samples > settings.window_size:
        raise InvalidInputError("'min_samples' is above 'window_size'.", "min_samples")
    checked_parameters(settings.backend, dict(settings.parameters))
    most = AUTO_INFO.max_rows
    if settings.backend != AUTO:
        most = DESCRIPTIONS[backend_name(settings.backend)].max_rows
    if settings.window_size > most:
        message = f"{settings.backend} fits at most {most} points."
        raise InvalidInputError(message, "window_size")


def check_names(stream: Stream, rows: Sequence[Row]) -> None:
    """Raises InvalidInputError for a column that is called as one of the features will be."""
    names = with_features(rows[:1], stream.columns, stream.settings).columns or ()
    for name, count in Counter(names).items():
        if count > 1:
            raise InvalidInputError(f"The column {shown(name)} has the name of a feature.", "data")


def check_given(stream: Stream, request: StreamRequest) -> None:
    """Raises InvalidInputError for a setting that the detector was not created with."""
    for name in request.given:
        if getattr(stream.settings, name) != getattr(request.settings, name):
            raise InvalidInputError(
                f"The detector was created with another '{name}'; delete it first.", name
            )


def rows_of(stream: Stream, table: Table) -> list[Row]:
    """The cells in the detector's order, checked. Raises InvalidInputError."""
    if stream.named != (table.columns is not None):
        kind = "objects" if stream.named else "lists of values"
        raise InvalidInputError(f"The points of this detector are {kind}.", "data")
    if table.columns is None:
        widths = {len(row) for row in table.rows}
        if widths != {len(stream.columns)}:
            message = f"A point of this detector has {len(stream.columns)} values."
            raise InvalidInputError(message, "data")
        return [_checked(row, index) for index, row in enumerate(table.rows)]
    for name in stream.columns:
        if name not in table.columns:
            raise InvalidInputError(f"The column {shown(name)} is missing.", "data")
    if len(table.columns) != len(stream.columns):
        raise InvalidInputError("There are columns that the detector does not know.", "data")
    places = [table.columns.index(name) for name in stream.columns]
    ordered = (tuple(row[place] for place in places) for row in table.rows)
    return [_checked(row, index) for index, row in enumerate(ordered)]


def check_kinds(stream: Stream, known: Sequence[Row], rows: Sequence[Row]) -> None:
    """Raises InvalidInputError for a cell of another kind than those before it in its column.

    `known` are points that have come already, the first ones of a stream decide. With two kinds in
    one column, the features of a point would not be those that the detector was fitted on.
    """
    first = next(chain(known, rows), ())
    kinds = list(map(_kind, first))
    for index, row in enumerate(rows):
        if list(map(_kind, row)) == kinds:
            continue
        for name, kind, cell in zip(stream.columns, kinds, row, strict=True):
            if _kind(cell) != kind:
                message = f"Point {index}, column {shown(name)}: {kind} is expected"
                raise InvalidInputError(f"{message}, as in the first point.", f"data.{index}")


def _kind(cell: Cell) -> str:
    if isinstance(cell, str):
        return "a text"
    return "true or false" if isinstance(cell, bool) else "a number"


def _checked(row: Row, index: int) -> Row:
    """A cell that no fit can take would stop every fit until it has left the window."""
    for cell in row:
        if cell is None or (isinstance(cell, float | int) and not is_finite(cell)):
            fault = "without a value" if cell is None else "that is no finite number of 64 bits"
            raise InvalidInputError(f"Point {index} has a cell {fault}.", f"data.{index}")
    return row
