"""What all libraries of fitted models share: names, and how many fits run at a time."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import InvalidInputError, OverloadedError

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


def check_name(name: str) -> None:
    """Raises InvalidInputError for what is no name of a fitted model."""
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidInputError(
            "The name of a fitted model has 1 to 64 letters, digits, '_', '-' or '.', "
            "and starts with a letter or digit.",
            "model",
        )


class FitTurns:
    """At most so many fits at a time; further ones are refused at once."""

    def __init__(self, at_once: int) -> None:
        self._free = threading.BoundedSemaphore(at_once)

    @contextmanager
    def turn(self, wait: bool = False) -> Iterator[None]:
        """Raises OverloadedError when all turns are taken, unless it is to wait for one."""
        if not self._free.acquire(blocking=wait):
            raise OverloadedError("Other models are being fitted.", retry_after=5.0)
        try:
            yield
        finally:
            self._free.release()
