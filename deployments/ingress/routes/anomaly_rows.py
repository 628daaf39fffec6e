"""Rows of a request: JSON, or a CSV, Arrow or Parquet file with the other fields in the query."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field
from starlette.requests import Request

from deployments.ingress.bodies import media_type, read_chunks, read_json
from deployments.ingress.errors import RequestRefused
from deployments.ingress.schemas import HARD_COLUMN_LIMIT, HARD_LIST_LIMIT, Body
from deployments.ingress.server import Server, check_count
from models.errors import InvalidInputError
from models.types.anomaly import AnyTable, NumericTable, Table, UploadedTable

DetectorName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.\-]{0,63}$")]
DetectorReference = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][\w.\-]{0,127}(@([0-9]{1,9}|latest))?$")
]
"""A name, a version of it, an alias, or the predecessor's name of a file."""
Cell = float | int | bool | str | None
Row = Annotated[list[Cell], Field(max_length=HARD_COLUMN_LIMIT, fail_fast=True)]
NamedRow = Annotated[dict[str, Cell], Field(max_length=HARD_COLUMN_LIMIT)]
Rows = (
    Annotated[list[Row], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)]
    | Annotated[list[NamedRow], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)]
)
FORMATS: dict[str, Literal["csv", "arrow", "parquet"]] = {
    "text/csv": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.arrow.file": "arrow",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
}
MEDIA_TYPES = ("application/json", *FORMATS)
BULK_CELLS = 10_000
"""From so many on, numbers are packed."""
IN_MEMORY = 1 << 20
"""Bytes of a file that arrives; more are kept on disk until all of it is here."""
JSON_FIELDS = ("schema", "parameters")

BodyT = TypeVar("BodyT", bound=Body)


class RowsBody(Body):
    """`data` is a list of rows of numbers, or of objects with one key per column."""

    data: Rows


class FileQuery(Body):
    """The fields of a request whose body is the file. What is not a text is written as JSON."""

    model_config = ConfigDict(strict=False)

    header: bool = True
    """The first line of a CSV file names the columns."""


def rows_reader(
    body: type[Body], query: type[FileQuery]
) -> Callable[[Server, Request], Awaitable[tuple[Any, AnyTable]]]:
    """Reads the fields of a request and its table."""

    async def read(server: Server, request: Request) -> tuple[Any, AnyTable]:
        format_name = FORMATS.get(media_type(request))
        if format_name is None:
            fields: Any = await read_json(request, body, server.config.limits.max_body_bytes)
            return fields, bulk_table_of(server, fields.data)
        asked = query.model_validate(_query(request))
        limits = server.config.limits
        data = await _file(request, limits.max_table_bytes)
        if not data:
            raise InvalidInputError("The file is empty.", "data")
        table = UploadedTable(
            format_name, data, limits.max_rows, limits.max_columns, header=asked.header
        )
        return asked, table

    return read


async def _file(request: Request, max_bytes: int) -> bytes:
    """A slow upload holds disk, not memory."""
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
        async for chunk in read_chunks(request, max_bytes):
            file.write(chunk)
        file.seek(0)
        return file.read()


def _query(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = dict(request.query_params)
    for name in JSON_FIELDS:
        if name in fields:
            try:
                fields[name] = json.loads(fields[name])
            except (ValueError, RecursionError):
                raise RequestRefused(400, f"'{name}' must be a JSON object.", name) from None
    return fields


def table_of(server: Server, data: list[Any], param: str = "data") -> Table:
    """Raises InvalidInputError for too much of it and for rows that are not alike."""
    columns = _checked_columns(server, data, param)
    if columns is None:
        return Table(tuple(map(tuple, data)))
    return Table(tuple(tuple(row[name] for name in columns) for row in data), columns)


def bulk_table_of(server: Server, data: list[Any]) -> Table | NumericTable:
    """As `table_of`; many numbers become a matrix here, which travels in a tenth of the time."""
    columns = _checked_columns(server, data, "data")
    if len(data) * len(data[0]) >= BULK_CELLS and len(set(map(len, data))) == 1:
        rows = data if columns is None else ([row[name] for name in columns] for row in data)
        values = _matrix(rows, len(data), len(data[0]))
        if values is not None:
            return NumericTable(values, columns)
    return table_of(server, data)


def _matrix(rows: Iterable[list[Any]], count: int, width: int) -> npt.NDArray[np.float64] | None:
    """None where a cell is no number."""
    cells = list(chain.from_iterable(rows))
    if not set(map(type, cells)) <= {float, int}:
        return None
    try:
        return np.fromiter(cells, dtype=np.float64, count=len(cells)).reshape(count, width)
    except OverflowError:
        return None


def _checked_columns(server: Server, data: list[Any], param: str) -> tuple[str, ...] | None:
    """The names of the columns, None for rows without names."""
    limits = server.config.limits
    check_count(param, len(data), limits.max_rows)
    widest, narrowest = max(map(len, data)), min(map(len, data))
    if narrowest == 0:
        raise InvalidInputError("A row has no columns.", param)
    if widest > limits.max_columns:
        message = f"A row has {widest} columns; the limit is {limits.max_columns}."
        raise InvalidInputError(message, param)
    if not isinstance(data[0], dict):
        return None
    columns = tuple(data[0])
    for index, row in enumerate(data):
        if row.keys() != data[0].keys():
            message = f"Row {index} does not have the same columns as row 0."
            raise InvalidInputError(message, f"{param}.{index}")
    return columns
