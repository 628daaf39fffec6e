"""Who holds how much of a node's memory: one book for all processes of one user on the node."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployments.memory.node_book import Entry, NodeBook, start_of
from models.errors import MemoryRefusedError

RETRY_S = 10.0


@dataclass(frozen=True, slots=True)
class Holding(Entry):
    """What one model takes of one place, which is a `Device.key`."""

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
        self._book = NodeBook(folder, "memory", Holding)
        self._pid = pid or os.getpid()
        self._start = start_of(self._pid)

    def take(self, model_id: str, amounts: Mapping[str, int], spaces: Mapping[str, Space]) -> None:
        """Enter what a model of this process takes, by place, instead of what it had.

        Raises MemoryRefusedError, and then nothing is held for it.
        """
        with self._book.open() as holdings:
            holdings[:] = [h for h in holdings if not self._owns(h, model_id)]
            for place, n_bytes in amounts.items():
                _check_room(model_id, n_bytes, place, spaces[place], holdings)
            holdings += [
                Holding(self._pid, self._start, place, model_id, n_bytes)
                for place, n_bytes in amounts.items()
                if n_bytes
            ]

    def give_back(self, model_id: str) -> None:
        with self._book.open() as holdings:
            holdings[:] = [h for h in holdings if not self._owns(h, model_id)]

    def room(self, place: str, space: Space, *, without: str) -> int:
        """Bytes that a model of this process could take, which gives back what it has."""
        with self._book.open() as holdings:
            others = [h for h in holdings if not self._owns(h, without)]
        return max(0, min(space.free, space.usable - _held(others, place)))

    def _owns(self, holding: Holding, model_id: str) -> bool:
        return holding.pid == self._pid and holding.model_id == model_id


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
        n_bytes - room,
    )


def _held(holdings: list[Holding], place: str) -> int:
    return sum(h.n_bytes for h in holdings if h.place == place)
