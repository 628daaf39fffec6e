"""One step's input as parallel arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


class Batch:
    """Arrays that a step fills by slices, never by loops; their memory never moves.

    Entry i is `tokens[i]` at position `positions[i]` of the sequence in slot `slots[i]`; its
    logits are computed when `outputs[i]` is 1.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self.tokens: IntArray = np.zeros(capacity, np.int32)
        self.positions: IntArray = np.zeros(capacity, np.int32)
        self.slots: IntArray = np.zeros(capacity, np.int32)
        self.outputs: npt.NDArray[np.int8] = np.zeros(capacity, np.int8)

    def clear(self) -> None:
        self.size = 0

    def append_singles(self, slots: list[int], positions: list[int], tokens: list[int]) -> None:
        """Add one token of each of several sequences, all with logits."""
        first, last = self._extend(len(slots))
        self.tokens[first:last] = tokens
        self.positions[first:last] = positions
        self.slots[first:last] = slots
        self.outputs[first:last] = 1

    def append(self, slot: int, start: int, tokens: IntArray, *, outputs: int) -> int:
        """Add consecutive tokens of one sequence; returns the index of the last one.

        `outputs`: so many of them, the last ones, get logits.
        """
        first, last = self._extend(len(tokens))
        self.tokens[first:last] = tokens
        self.positions[first:last] = np.arange(start, start + len(tokens), dtype=np.int32)
        self.slots[first:last] = slot
        self.outputs[first:last] = 0
        self.outputs[last - outputs : last] = 1
        return last - 1

    def _extend(self, count: int) -> tuple[int, int]:
        first, last = self.size, self.size + count
        if last > self.capacity:
            raise ValueError("more tokens than the batch holds")
        self.size = last
        return first, last
