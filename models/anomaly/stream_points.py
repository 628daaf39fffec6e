"""What a request says of a streaming detector, against what the detector was created with."""

from __future__ import annotations

from models.anomaly.columns import shown
from models.anomaly.stream_state import Stream
from models.errors import InvalidInputError
from models.types.anomaly import Row, StreamRequest, Table


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


def _checked(row: Row, index: int) -> Row:
    """A missing cell would stop every fit until it has left the window."""
    for cell in row:
        if cell is None or (isinstance(cell, float) and not abs(cell) < float("inf")):
            raise InvalidInputError(f"Point {index} has a cell without a value.", f"data.{index}")
    return row
