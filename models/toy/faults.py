"""Faults on purpose: what tests ask the weightless models for, to see what the server does then."""

from __future__ import annotations

import ctypes
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SLOW_S = 1.0


def _raise() -> None:
    raise RuntimeError("a fault on purpose")


def _die() -> None:
    """End the thread: no library raises this, and nothing but the outermost frame catches it."""
    raise SystemExit


def _hang() -> None:
    threading.Event().wait()


def _spin() -> None:
    """Hang without ever giving the interpreter lock back."""
    sum(itertools.repeat(0))


def _segv() -> None:
    ctypes.string_at(0)


def _oom() -> None:
    bytearray(1 << 62)


def _slow() -> None:
    time.sleep(SLOW_S)


CAUSES: Mapping[str, Callable[[], None]] = {
    "raise": _raise,
    "die": _die,
    "hang": _hang,
    "spin": _spin,
    "segv": _segv,
    "oom": _oom,
    "slow": _slow,
}


@dataclass(frozen=True, slots=True)
class Faults:
    """`load`: the fault of loading the model, while `file` exists (None: always).

    `infer`: inputs that contain "fault:" and the name of a fault have it.
    """

    load: str | None = None
    file: str | None = None
    infer: bool = False

    @classmethod
    def of(cls, options: Mapping[str, str | bool] | None) -> Faults:
        return cls(**options) if options else cls()  # type: ignore[arg-type]  # checked by tests

    def at_load(self) -> None:
        if self.load is not None and (self.file is None or Path(self.file).exists()):
            CAUSES[self.load]()

    def in_text(self, text: str) -> None:
        if not self.infer or "fault:" not in text:
            return
        for name, cause in CAUSES.items():
            if f"fault:{name}" in text:
                cause()
