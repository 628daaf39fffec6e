"""Which cells of the KV pool each sequence's tokens are in: pages of one token, shared by count."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CellArray = npt.NDArray[np.int64]
_FIRST_ROOM = 64


class CellTable:
    """`cells` cells shared by `slots` sequences. Token i of a sequence is in its i-th cell.

    A cell that several sequences share counts once, and is free when the last of them is gone.
    """

    def __init__(self, *, cells: int, slots: int) -> None:
        self.slots = slots
        self._free: CellArray = np.arange(cells - 1, -1, -1, dtype=np.int64)
        self._free_count = cells
        self._holders = np.zeros(cells, np.int32)
        self._held: list[CellArray] = [np.empty(0, np.int64) for _ in range(slots)]
        self._lengths = [0] * slots

    @property
    def free(self) -> int:
        return self._free_count

    def length(self, slot: int) -> int:
        return self._lengths[slot]

    def cells(self, slot: int) -> CellArray:
        """The cells of a sequence in the order of its tokens; a view."""
        return self._held[slot][: self._lengths[slot]]

    def extend(self, slot: int, count: int) -> CellArray:
        """Take cells for `count` more tokens; a view. ValueError when too few are free."""
        if count > self._free_count:
            raise ValueError("the KV pool has fewer free cells")
        start = self._lengths[slot]
        held = self._with_room(slot, start + count)
        first = self._free_count - count
        held[start : start + count] = self._free[first : self._free_count][::-1]
        self._free_count = first
        self._lengths[slot] = start + count
        taken = held[start : start + count]
        self._holders[taken] = 1
        return taken

    def copy(self, source: int, target: int, length: int) -> None:
        """Let the empty sequence `target` start with the first `length` cells of `source`."""
        if self._lengths[target]:
            raise ValueError("the target of a copy is not empty")
        if length > self._lengths[source]:
            raise ValueError("a copy is longer than its source")
        shared = self._held[source][:length]
        self._with_room(target, length)[:length] = shared
        self._lengths[target] = length
        self._holders[shared] += 1

    def remove(self, slot: int) -> None:
        """Drop a sequence; cells that no other sequence shares become free."""
        cells = self.cells(slot)
        self._holders[cells] -= 1
        released = cells[self._holders[cells] == 0]
        end = self._free_count + len(released)
        self._free[self._free_count : end] = released[::-1]
        self._free_count = end
        self._lengths[slot] = 0

    def _with_room(self, slot: int, size: int) -> CellArray:
        """The slot's array, made larger when it holds fewer than `size` entries."""
        held = self._held[slot]
        if len(held) < size:
            larger = np.empty(max(size, 2 * len(held), _FIRST_ROOM), np.int64)
            larger[: self._lengths[slot]] = held[: self._lengths[slot]]
            self._held[slot] = held = larger
        return held
