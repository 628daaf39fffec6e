"""CSV, Arrow and Parquet files from strangers to tables.

Runs in a process whose memory is bounded. Messages are ours, never those of the library that reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from models.errors import InvalidInputError, UnsupportedInputError
from models.types.anomaly import Cell, NumericTable, Table, UploadedTable

PARAM = "data"
ARROW_FILE = b"ARROW1"
BATCH_ROWS = 65_536
CSV_BLOCK_BYTES = 4 << 20
SHOWN_CHARS = 64


def read_table(upload: UploadedTable) -> Table | NumericTable:
    """Raises InvalidInputError for what is too large, UnsupportedInputError for what is broken."""
    try:
        table = _joined(READERS[upload.format](upload), upload)
        names = tuple(table.column_names) if _named(upload) else None
        return _numbers(table, names) or _cells(table, names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, MemoryError):  # Arrow's own kind is both
            raise
        raise UnsupportedInputError(
            f"The {upload.format} file is damaged, or not what it says it is.", PARAM
        ) from error


def _named(upload: UploadedTable) -> bool:
    return upload.format != "csv" or upload.header


def _csv(upload: UploadedTable) -> Iterator[pa.RecordBatch]:
    """An empty cell is missing; the types of columns are those of the first megabytes."""
    reader = pa.csv.open_csv(
        pa.BufferReader(upload.data),
        read_options=pa.csv.ReadOptions(
            block_size=CSV_BLOCK_BYTES,
            use_threads=False,
            autogenerate_column_names=not upload.header,
        ),
        convert_options=pa.csv.ConvertOptions(
            null_values=[""], strings_can_be_null=True, timestamp_parsers=["never"]
        ),
    )
    return _batches(reader, upload)


def _arrow(upload: UploadedTable) -> Iterator[pa.RecordBatch]:
    source = pa.py_buffer(upload.data)
    if bytes(upload.data[: len(ARROW_FILE)]) != ARROW_FILE:
        with pa.ipc.open_stream(source) as stream:
            yield from _batches(stream, upload)
        return
    with pa.ipc.open_file(source) as file:
        _check_width(file.schema, upload)
        batches = (file.get_batch(index) for index in range(file.num_record_batches))
        yield from _checked(batches)


def _parquet(upload: UploadedTable) -> Iterator[pa.RecordBatch]:
    file = pa.parquet.ParquetFile(pa.BufferReader(upload.data))
    _check_width(file.schema_arrow, upload)
    _check_height(file.metadata.num_rows, upload)
    return file.iter_batches(batch_size=BATCH_ROWS, use_threads=False)  # type: ignore[no-any-return]


READERS = {"csv": _csv, "arrow": _arrow, "parquet": _parquet}


def _batches(reader: Any, upload: UploadedTable) -> Iterator[pa.RecordBatch]:
    _check_width(reader.schema, upload)
    return _checked(reader)


def _checked(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """What a file says of its own buffers is not believed."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _joined(batches: Iterable[pa.RecordBatch], upload: UploadedTable) -> pa.Table:
    kept, rows = [], 0
    for batch in batches:
        rows += batch.num_rows
        _check_height(rows, upload)
        kept.append(batch)
    if not rows:
        raise InvalidInputError("There are no rows.", PARAM)
    return pa.Table.from_batches(kept)


def _check_width(schema: pa.Schema, upload: UploadedTable) -> None:
    if not schema.names:
        raise InvalidInputError("There are no columns.", PARAM)
    if len(schema.names) > upload.max_columns:
        message = f"The file has {len(schema.names)} columns; the limit is {upload.max_columns}."
        raise InvalidInputError(message, PARAM)
    if len(set(schema.names)) != len(schema.names):
        raise InvalidInputError("Two columns have the same name.", PARAM)


def _check_height(rows: int, upload: UploadedTable) -> None:
    if rows > upload.max_rows:
        raise InvalidInputError(f"The file has more rows than the limit, {upload.max_rows}.", PARAM)


def _numbers(table: pa.Table, names: tuple[str, ...] | None) -> NumericTable | None:
    """None where a column has anything but numbers."""
    if not all(_is_number(column.type) for column in table.columns):
        return None
    values = np.empty((table.num_rows, table.num_columns), dtype=np.float64)
    for index, column in enumerate(table.columns):
        values[:, index] = _floats(column)
        # A NaN in the file is no missing number: the encoder must see it, and refuse it.
        if np.isnan(values[:, index]).sum() != column.null_count:
            return None
    return NumericTable(values, names)


def _floats(column: pa.ChunkedArray) -> Any:
    return column.cast(pa.float64(), safe=False).to_numpy()


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _cells(table: pa.Table, names: tuple[str, ...] | None) -> Table:
    columns = [
        _column(name, column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return Table(tuple(zip(*columns, strict=True)), names)


def _column(name: str, column: pa.ChunkedArray) -> list[Cell]:
    """The cells of one column. Raises InvalidInputError for dates, lists and the like."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    plain = (pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean, pa.types.is_null)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (_is_number(kind) or any(check(kind) for check in plain)):
        shown = repr(name[:SHOWN_CHARS])
        message = f"The column {shown} has neither numbers nor texts nor truth values."
        raise InvalidInputError(message, PARAM)
    cells: list[Cell] = column.to_pylist()
    return cells
