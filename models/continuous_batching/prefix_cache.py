"""Finished sequences that stay in the KV pool, so that the next prompt can start from them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.continuous_batching.kv_pool import KvPool

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Match:
    """The first `length` tokens of a prompt are what slot `slot` starts with."""

    slot: int
    length: int


NO_MATCH = Match(-1, 0)


class PrefixCache:
    """Least recently used finished sequences, by slot.

    Every resident cell makes each decode step a little slower (attention scans the occupied part
    of the pool), so sequences are dropped once the pool is fuller than `max_used_cells`; the most
    recent one always stays. When cells or slots run short the engine calls `evict`.
    """

    def __init__(self, pool: KvPool, *, max_used_cells: int, enabled: bool = True) -> None:
        self._pool = pool
        self._max_used = max_used_cells
        self._enabled = enabled
        self._tokens: OrderedDict[int, IntArray] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def enabled(self) -> bool:
        return self._enabled

    def longest(self, prompt: IntArray) -> Match:
        """The resident sequence with the longest common prefix."""
        best = NO_MATCH
        for slot, tokens in self._tokens.items():
            length = common_prefix(tokens, prompt)
            if length > best.length:
                best = Match(slot, length)
        return best

    def keep(self, slot: int, tokens: IntArray) -> None:
        """Take over a finished sequence's slot, or free it when its tokens are resident already."""
        if not self._enabled or not len(tokens):
            self._pool.release(slot)
            return
        for other, known in list(self._tokens.items()):
            length = common_prefix(known, tokens)
            if length == len(tokens):
                self._pool.release(slot)
                self.touch(other)
                return
            if length == len(known):
                self._drop(other)
        self._tokens[slot] = tokens.copy()
        while self._pool.used > self._max_used and len(self._tokens) > 1:
            self.evict()

    def touch(self, slot: int) -> None:
        """Mark as just used; slots that are not cached are ignored."""
        if slot in self._tokens:
            self._tokens.move_to_end(slot)

    def evict(self, spare: int = -1) -> bool:
        """Drop the least recently used sequence but `spare`; False when there is none."""
        victim = next((slot for slot in self._tokens if slot != spare), None)
        if victim is None:
            return False
        self._drop(victim)
        return True

    def clear(self) -> None:
        while self.evict():
            pass

    def _drop(self, slot: int) -> None:
        del self._tokens[slot]
        self._pool.release(slot)


def common_prefix(left: IntArray, right: IntArray) -> int:
    """How many tokens two sequences share at their start."""
    size = min(len(left), len(right))
    if size == 0 or left[0] != right[0]:
        return 0
    differs = left[:size] != right[:size]
    first = int(differs.argmax())
    return first if differs[first] else size
