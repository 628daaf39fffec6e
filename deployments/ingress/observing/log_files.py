"""The log line of a request costs no more than it must."""

from __future__ import annotations

import logging
from functools import partial
from logging.handlers import RotatingFileHandler


def write_each_line_once(logger: str) -> None:
    """For the rotating files of a logger, also those that stand behind a buffer.

    Python's own handler makes the text of every record twice, the first time to see whether it
    still fits, and looks twice what kind of file it writes: two fifths of what a line costs.
    """
    for handler in logging.getLogger(logger).handlers:
        file = getattr(handler, "target", handler)
        if isinstance(file, RotatingFileHandler):
            file.shouldRollover = partial(_is_full, file)  # type: ignore[method-assign]


def _is_full(file: RotatingFileHandler, record: logging.LogRecord) -> bool:
    """By what is in the file: its last line may end beyond the limit."""
    del record
    return 0 < file.maxBytes <= (file.stream.tell() if file.stream else 0)
