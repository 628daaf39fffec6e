"""How long a context and how large a KV pool a model gets, within what memory allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CELLS_PER_SEQUENCE = 1024
DEFAULT_KV_BYTES = 2 * 2**30
MIN_CELLS = 2048
CELL_STEP = 256  # llama.cpp rounds the pool up to this
USEFUL_CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class Pool:
    """Tokens of one request, prompt and completion together, and cells of all requests."""

    context: int
    cells: int


@dataclass(frozen=True, slots=True)
class PoolWish:
    """What was asked for. `trained` is the model's own context length.

    The context is the trained one or `n_ctx`, whichever is smaller. The pool holds one full context
    or 1024 tokens for each sequence, whichever is more, or `kv_cells`. `min_context` is the
    smallest context that is of any use, 2048 tokens by default.
    """

    trained: int
    n_ctx: int | None = None
    kv_cells: int | None = None
    max_sequences: int = 16
    min_context: int | None = None

    @property
    def context(self) -> int:
        return min(self.n_ctx or self.trained, self.trained)

    def full(self) -> Pool:
        """With all the memory that it may want."""
        cells = self.kv_cells or max(self.context, self.max_sequences * CELLS_PER_SEQUENCE)
        cells = -(-cells // CELL_STEP) * CELL_STEP
        return Pool(min(self.context, cells), cells)

    def modest(self, kv_bytes_per_cell: int) -> Pool:
        """As `full`, but within 2 GiB (and at least 2048 cells) where nobody named a size."""
        full = self.full()
        if self.n_ctx is not None or self.kv_cells is not None:
            return full
        affordable = max(DEFAULT_KV_BYTES // max(kv_bytes_per_cell, 1), MIN_CELLS)
        return self._within(full, affordable)

    def smallest(self) -> Pool:
        """One request of the smallest useful context."""
        full = self.full()
        context = min(full.context, self.min_context or USEFUL_CONTEXT)
        return Pool(context, -(-context // CELL_STEP) * CELL_STEP)

    def fitted(self, largest: Pool, fits: Callable[[int], bool]) -> Pool:
        """The largest pool, up to `largest`, whose cells fit; `smallest` where none does."""
        smallest = self.smallest()
        if fits(largest.cells):
            return largest
        low, high = smallest.cells // CELL_STEP, largest.cells // CELL_STEP
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle * CELL_STEP) else (low, middle - 1)
        return max(smallest, self._within(largest, low * CELL_STEP), key=lambda pool: pool.cells)

    def _within(self, pool: Pool, cells: int) -> Pool:
        cells = -(-min(pool.cells, cells) // CELL_STEP) * CELL_STEP
        return Pool(min(pool.context, cells), cells)
