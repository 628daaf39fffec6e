"""An exact account of the unified KV pool: which slot holds which cells, and which are free.

llama.cpp does not say how many cells are in use once sequences share some, and asking by trial
(a decode that fails) is expensive, so every copy, growth and removal goes through here.
"""

from __future__ import annotations

from typing import Protocol


class KvMemory(Protocol):
    """The native side of the pool."""

    def copy(self, source: int, target: int, length: int) -> None: ...

    def remove(self, slot: int) -> None: ...


class KvPool:
    """`cells` KV cells shared by `slots` sequences."""

    def __init__(self, memory: KvMemory, *, cells: int, slots: int) -> None:
        self.cells = cells
        self._memory = memory
        self._free = list(range(cells))
        self._holders = [0] * cells
        self._held: list[list[int]] = [[] for _ in range(slots)]
        self._free_slots = list(range(slots))

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def used(self) -> int:
        return self.cells - len(self._free)

    @property
    def has_free_slot(self) -> bool:
        return bool(self._free_slots)

    def take_slot(self) -> int:
        """An empty slot; IndexError when there is none."""
        return self._free_slots.pop()

    def share(self, source: int, target: int, length: int) -> None:
        """Let the empty slot `target` start with the first `length` cells of `source`."""
        cells = self._held[source][:length]
        self._memory.copy(source, target, length)
        self._held[target] = cells
        for cell in cells:
            self._holders[cell] += 1

    def grow(self, slot: int, count: int) -> None:
        """Account for `count` more tokens that a decode has stored for a slot."""
        if count > len(self._free):
            raise ValueError("the KV pool has fewer free cells")
        rest = len(self._free) - count
        cells = self._free[rest:]
        del self._free[rest:]
        for cell in cells:
            self._holders[cell] = 1
        self._held[slot].extend(cells)

    def release(self, slot: int) -> None:
        """Empty a slot and give it back."""
        self._memory.remove(slot)
        for cell in self._held[slot]:
            self._holders[cell] -= 1
            if not self._holders[cell]:
                self._free.append(cell)
        self._held[slot] = []
        self._free_slots.append(slot)
