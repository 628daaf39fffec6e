"""Keeps what clients sent out of tracebacks.

Libraries quote their input in the messages of their exceptions ("could not convert string to float:
'…'"). Where an exception is that of a request, the log tells its types and where it came from.
"""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any

OF_REQUESTS = ("models", "asyncio", "uvicorn")
"""Loggers whose exceptions are those of requests: engines, abandoned tasks, the HTTP server."""
SERVES_LOGGER = "ray.serve"
FAILED = ("Request failed", "Stream failed")
"""What Serve and the ingress begin with there; a load that failed keeps its message."""
ASYNCIOS_LOGGER = "asyncio"
ARGUMENTS = re.compile(r"[\n(]")
"""Before which asyncio says what has failed. Then come the arguments of a callback, and the future
or task with its exception, message included."""


def _of_request(logger: str, message: str) -> bool:
    if logger == SERVES_LOGGER:
        return message.startswith(FAILED)
    return logger.partition(".")[0] in OF_REQUESTS


def outline(error: BaseException) -> str:
    """The traceback of an exception and of what caused it, first cause first, without messages."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    parts = [
        "".join(traceback.format_tb(each.__traceback__)) + type(each).__qualname__
        for each in reversed(chain)
    ]
    return "\n".join(parts)


def keep_requests_out_of_logs() -> None:
    """For every logger of this process, which a replica calls once when it starts."""
    make = logging.getLogRecordFactory()  # Ray's own, which adds to records

    def private(name: str, *args: Any, **options: Any) -> logging.LogRecord:
        record = make(name, *args, **options)
        if record.exc_info and record.exc_info[1] and _of_request(name, str(record.msg)):
            record.exc_text = outline(record.exc_info[1])
            if name == ASYNCIOS_LOGGER:
                record.msg, record.args = ARGUMENTS.split(record.getMessage(), 1)[0], None
        return record

    logging.setLogRecordFactory(private)
