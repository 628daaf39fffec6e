"""The process that fits detectors and reads uploaded files; it may be killed at any time.

Run as a script by `workers.py`, which sends it one task after the other. It ends with its standard
input, so that none outlives its replica, and has bounds of the operating system on its memory.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

NICENESS = 5
"""Scoring in the replica goes before a fit beside it."""


def main() -> None:
    descriptor, memory_bytes, threads, paths = sys.argv[1:]
    sys.path[:] = json.loads(paths)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = threads
    os.nice(NICENESS)
    _bound(int(memory_bytes))
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    connection: Connection[Any, Any] = Connection(int(descriptor))
    while True:
        try:
            name, argument = connection.recv()
        except EOFError:
            return
        _reply(connection, name, argument)


def _reply(connection: Connection[Any, Any], name: str, argument: Any) -> None:
    """A file comes, and a matrix goes, beside the message that announces it."""
    from models.anomaly.shared_bytes import receive_buffer, send_table
    from models.types.anomaly import NumericTable

    if name == "read":
        argument = dataclasses.replace(argument, data=receive_buffer(connection))
    result = _answer(name, argument)
    if isinstance(result, NumericTable):
        send_table(connection, result)
    else:
        connection.send(result)


def _bound(memory_bytes: int) -> None:
    """Of what it writes to: what torch merely maps is not counted."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with_the_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _answer(name: str, argument: Any) -> Any:
    """The task's result or its ModelError; OUT_OF_MEMORY where that was the end of it."""
    from models.anomaly.workers import OUT_OF_MEMORY, tasks
    from models.errors import ModelError

    try:
        return tasks()[name](argument)
    except ModelError as error:
        return error
    except MemoryError:
        return OUT_OF_MEMORY
    except Exception as error:
        # numpy and torch have memory errors of their own, with this in their text.
        if "alloc" in str(error).lower():
            return OUT_OF_MEMORY
        raise


if __name__ == "__main__":
    main()
