"""Who holds how much of a node's memory: one book for all processes of one user on the node.

The book is a file, written under a lock. An entry names its process by id and start time, so that
what a dead process held is free again. There is nothing to start and nothing that can die.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from models.errors import MemoryRefusedError, ModelLoadError

SAME_START_S = 2.0
"""Two readings of one process's start may differ by as much."""
RETRY_S = 10.0


@dataclass(frozen=True, slots=True)
class Holding:
    """`place` is a `Device.key`; `start` is in seconds since the epoch."""

    pid: int
    start: float
    place: str
    model_id: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Space:
    """The memory of one place: what may be held in all, and what is free at this moment."""

    usable: int
    free: int


class NodeLedger:
    """The book as this process sees it. Every call is atomic and takes a moment."""

    def __init__(self, folder: Path | None = None, pid: int | None = None) -> None:
        self._folder = folder or default_folder()
        self._pid = pid or os.getpid()
        self._start = psutil.Process(self._pid).create_time()

    def take(self, model_id: str, amounts: Mapping[str, int], spaces: Mapping[str, Space]) -> None:
        """Enter what a model of this process takes, by place, instead of what it had.

        Raises MemoryRefusedError, and then nothing is held for it.
        """
        with self._book() as holdings:
            holdings[:] = [h for h in holdings if not self._owns(h, model_id)]
            for place, n_bytes in amounts.items():
                _check_room(model_id, n_bytes, place, spaces[place], holdings)
            holdings += [
                Holding(self._pid, self._start, place, model_id, n_bytes)
                for place, n_bytes in amounts.items()
                if n_bytes
            ]

    def give_back(self, model_id: str) -> None:
        with self._book() as holdings:
            holdings[:] = [h for h in holdings if not self._owns(h, model_id)]

    def room(self, place: str, space: Space, *, without: str) -> int:
        """Bytes that a model of this process could take, which gives back what it has."""
        with self._book() as holdings:
            others = [h for h in holdings if not self._owns(h, without)]
        return max(0, min(space.free, space.usable - _held(others, place)))

    def holdings(self) -> list[Holding]:
        with self._book() as holdings:
            return list(holdings)

    def _owns(self, holding: Holding, model_id: str) -> bool:
        return holding.pid == self._pid and holding.model_id == model_id

    @contextmanager
    def _book(self) -> Iterator[list[Holding]]:
        """The entries of living processes, written back when they are changed."""
        with (private(self._folder) / "memory.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self._folder / "memory.json"
            before = _read(path)
            holdings = [h for h in before if _lives(h)]
            try:
                yield holdings
            finally:
                if holdings != before:
                    draft = path.with_suffix(".new")
                    draft.write_text(json.dumps([asdict(h) for h in holdings]))
                    draft.replace(path)


def default_folder() -> Path:
    """Of this user on this node, gone after a restart of the machine as all entries are."""
    return Path(tempfile.gettempdir()) / f"inference-server-{os.getuid()}"


def private(folder: Path) -> Path:
    """The folder, made if need be. ModelLoadError when others could have put something there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ModelLoadError("the folder of the memory ledger is open to other users")
    return folder


def gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"


def _check_room(
    model_id: str, n_bytes: int, place: str, space: Space, holdings: list[Holding]
) -> None:
    room = max(0, min(space.free, space.usable - _held(holdings, place)))
    if n_bytes <= room:
        return
    holders: dict[str, int] = {}
    for holding in holdings:
        if holding.place == place:
            holders[holding.model_id] = holders.get(holding.model_id, 0) + holding.n_bytes
    names = ", ".join(f"'{name}' {gigabytes(n)}" for name, n in sorted(holders.items()))
    where = "memory" if place == "cpu" else f"the memory of {place}"
    raise MemoryRefusedError(
        f"The model '{model_id}' needs {gigabytes(n_bytes)} of {where}; {gigabytes(room)} of "
        f"{gigabytes(space.usable)} are free. Held by: {names or 'no model of this server'}.",
        RETRY_S,
    )


def _held(holdings: list[Holding], place: str) -> int:
    return sum(h.n_bytes for h in holdings if h.place == place)


def _read(path: Path) -> list[Holding]:
    """Empty where there is no book, or one that is no longer readable."""
    try:
        return [Holding(**entry) for entry in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []


def _lives(holding: Holding) -> bool:
    try:
        process = psutil.Process(holding.pid)
        return (
            abs(process.create_time() - holding.start) < SAME_START_S
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False
