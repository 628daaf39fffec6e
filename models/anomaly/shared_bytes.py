"""Large buffers from process to process by file descriptor, so that they are copied once.

An anonymous file in memory travels over the Unix socket that a `multiprocessing.Pipe` is; its
receiver maps it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from models.types.anomaly import NumericTable


@dataclass(frozen=True, slots=True)
class SharedTable:
    """Announces a matrix that follows as a buffer."""

    shape: tuple[int, ...]
    columns: tuple[str, ...] | None


def send_buffer(connection: Connection[Any, Any], data: bytes | memoryview) -> None:
    """Raises OSError."""
    descriptor = _anonymous_file()
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        reduction.send_handle(connection, descriptor, os.getpid())
    finally:
        os.close(descriptor)


def receive_buffer(connection: Connection[Any, Any]) -> memoryview:
    """Raises OSError, EOFError."""
    descriptor = reduction.recv_handle(connection)
    try:
        if not os.fstat(descriptor).st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
    finally:
        os.close(descriptor)


def send_table(connection: Connection[Any, Any], table: NumericTable) -> None:
    values = np.ascontiguousarray(table.values)
    connection.send(SharedTable(values.shape, table.columns))
    send_buffer(connection, values.view(np.uint8).reshape(-1).data)


def receive_table(connection: Connection[Any, Any], announced: SharedTable) -> NumericTable:
    """The matrix cannot be written to."""
    values = np.frombuffer(receive_buffer(connection), dtype=np.float64)
    return NumericTable(values.reshape(announced.shape), announced.columns)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("table")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
