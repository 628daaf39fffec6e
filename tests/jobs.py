"""Jobs of engines whose end nobody can foresee."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
TRIES = 100


def cancelled(submit: Callable[[], Future[T]]) -> Future[T]:
    """A job that was cancelled before it was done, which a small model may be at any moment."""
    for _ in range(TRIES):
        job = submit()
        if job.cancel():
            return job
    raise AssertionError("no job could be cancelled")
