"""Small files in which the processes of one user on one node tell each other what they take.

A book is written under a lock. Every entry names its process by id and start time, so that entries
of dead processes count no more. There is nothing to start and nothing that can die.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Generic, TypeVar

import psutil

from models.errors import ModelLoadError

SAME_START_S = 0.0 if sys.platform == "linux" else 2.0
"""Two readings of one process's start may differ by as much."""
LOCK_S = 5.0
"""The longest wait for others, who keep the lock for milliseconds unless they stand still."""
LOOK_AGAIN_S = 0.01


@dataclass(frozen=True, slots=True)
class Entry:
    """`start` of the process is in seconds, as `start_of` says."""

    pid: int
    start: float


E = TypeVar("E", bound=Entry)


class NodeBook(Generic[E]):
    """Entries of one kind, in the files `name`.json and `name`.lock of a private folder."""

    def __init__(
        self,
        folder: Path | None,
        name: str,
        kind: type[E],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder or default_folder()
        self._name = name
        self._kind = kind
        self._clock = clock
        self._sleep = sleep

    @contextmanager
    def open(self) -> Iterator[list[E]]:
        """The entries of living processes, alone; what is done to the list is kept.

        Raises ModelLoadError when the folder is not private or another process keeps the lock,
        OSError when nothing can be written.
        """
        with (private(self._folder) / f"{self._name}.lock").open("a") as lock:
            self._lock(lock)
            before = self._read()
            entries = [entry for entry in before if _lives(entry)]
            try:
                yield entries
            finally:
                if entries != before:
                    self._write(entries)

    def _lock(self, file: IO[str]) -> None:
        deadline = self._clock() + LOCK_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if self._clock() >= deadline:
                    message = f"another process keeps the node's book of {self._name} locked"
                    raise ModelLoadError(message) from None
            self._sleep(LOOK_AGAIN_S)

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
    """When a process was started, in seconds. Raises OSError or psutil.Error when it has ended.

    On Linux since the boot, which setting the clock does not move as it does psutil's time of day.
    """
    if sys.platform != "linux":
        return psutil.Process(pid).create_time()
    after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc_pid_stat(5)


def _lives(entry: Entry) -> bool:
    try:
        process = psutil.Process(entry.pid)
        same = abs(start_of(entry.pid) - entry.start) <= SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, FileNotFoundError, ProcessLookupError, TypeError, ValueError):
        return False  # it has ended, or is no process
