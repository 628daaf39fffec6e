"""Tables that are a matrix already: no cell is ever a Python object."""

from __future__ import annotations

import numpy as np

from models.anomaly.columns import MAX_MAGNITUDE, Matrix
from models.anomaly.tables import TableEncoder
from models.errors import ModelError
from models.types.anomaly import AnyTable, NumericTable, Table


def encoded(encoder: TableEncoder, table: AnyTable) -> Matrix:
    """float64 [rows, features]. Raises InvalidInputError."""
    matrix = _in_order(encoder, table) if isinstance(table, NumericTable) else None
    return encoder.encode(rows_of(table)) if matrix is None else matrix


def rows_of(table: AnyTable) -> Table:
    """The same table, cell by cell; a missing number is None."""
    if isinstance(table, Table):
        return table
    if not isinstance(table, NumericTable):
        raise ModelError("The file has not been read.")
    values = table.values
    if not np.isnan(values).any():
        return Table(tuple(map(tuple, values.tolist())), table.columns)
    rows = (tuple(None if x != x else x for x in row) for row in values.tolist())
    return Table(tuple(rows), table.columns)


def _in_order(encoder: TableEncoder, table: NumericTable) -> Matrix | None:
    """The encoder's features; None where it must look at the cells, or has something to refuse."""
    columns = encoder.columns
    names = table.columns or tuple(map(str, range(table.values.shape[1])))
    if any(column.encoding != "numeric" for column in columns):
        return None
    if len(encoder.features) != len(columns) or (encoder.named and table.columns is None):
        return None
    if sorted(names) != sorted(column.name for column in columns):
        return None
    if not len(table.values) or not np.isfinite(table.values).all():
        return None
    places = [names.index(column.name) for column in columns]
    values = table.values
    if places != list(range(len(names))):
        values = values[:, places]
    return np.ascontiguousarray(np.clip(values, -MAX_MAGNITUDE, MAX_MAGNITUDE))
