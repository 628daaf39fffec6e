"""Small files in which the processes of one user on one node tell each other what they take.

A book is written under a lock. Every entry names its process by id and start time, so that entries
of dead processes count no more. There is nothing to start and nothing that can die.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

import psutil

from models.errors import ModelLoadError

SAME_START_S = 2.0
"""Two readings of one process's start may differ by as much."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`start` of the process is in seconds since the epoch."""

    pid: int
    start: float


E = TypeVar("E", bound=Entry)


class NodeBook(Generic[E]):
    """Entries of one kind, in the files `name`.json and `name`.lock of a private folder."""

    def __init__(self, folder: Path | None, name: str, kind: type[E]) -> None:
        self._folder = folder or default_folder()
        self._name = name
        self._kind = kind

    @contextmanager
    def open(self) -> Iterator[list[E]]:
        """The entries of living processes, alone; what is done to the list is kept.

        Raises ModelLoadError when the folder is not private.
        """
        with (private(self._folder) / f"{self._name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self._read()
            entries = [entry for entry in before if _lives(entry)]
            try:
                yield entries
            finally:
                if entries != before:
                    self._write(entries)

    def _read(self) -> list[E]:
        """Empty where there is no book, or one that is no longer readable."""
        try:
            text = (self._folder / f"{self._name}.json").read_text()
            return [self._kind(**entry) for entry in json.loads(text)]
        except (OSError, ValueError, TypeError):
            return []

    def _write(self, entries: list[E]) -> None:
        draft = self._folder / f"{self._name}.new"
        draft.write_text(json.dumps([asdict(entry) for entry in entries]))
        draft.replace(draft.with_suffix(".json"))


def default_folder() -> Path:
    """Of this user on this node, gone after a restart of the machine as all entries are."""
    return Path(tempfile.gettempdir()) / f"inference-server-{os.getuid()}"


def private(folder: Path) -> Path:
    """The folder, made if need be. ModelLoadError when others could have put something there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ModelLoadError(f"the folder {folder.name} of the system is open to other users")
    return folder


def start_of(pid: int) -> float:
    """When a process was started."""
    return psutil.Process(pid).create_time()


def _lives(entry: Entry) -> bool:
    try:
        process = psutil.Process(entry.pid)
        same = abs(process.create_time() - entry.start) < SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, TypeError, ValueError):  # it has ended, or is no process
        return False
