"""How the attention of one step is cut into calls: which queries, over which cells of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.continuous_batching.batch import Batch
from models.encoders.length_split import split_by_length
from models.transformers_lm.kv_cells import CellTable

CALL_OVERHEAD_CELLS = 256
"""What one more attention call costs, in padded cells."""

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """`rows` of the step's tokens, which attend to `cells`, the keys of `sequences` sequences.

    A chunk is consecutive tokens of one sequence. Otherwise each sequence has one row (they
    decode), and shorter ones are padded at the end with a cell of their own: [sequences, length],
    flat. `positions` are those of the rows. When `sees_all`, causality alone hides none of the
    cells.
    """

    rows: slice | Tensor
    cells: Tensor
    sequences: int
    length: int
    positions: Tensor
    is_chunk: bool
    sees_all: bool


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What a step writes and reads. `cells` has one cell per token of the batch."""

    cells: Tensor
    calls: tuple[AttentionCall, ...]


@dataclass(frozen=True, slots=True)
class Planner:
    """Turns batches into plans, and takes the cells that they need."""

    table: CellTable
    device: torch.device

    def plan(self, batch: Batch) -> StepPlan | None:
        """None when the pool has no room (nothing was changed).

        Raises ValueError for sequences that are out of range or have a gap.
        """
        slots = batch.slots[: batch.size]
        if slots.min() < 0 or slots.max() >= self.table.slots:
            raise ValueError("a sequence id is outside the pool")
        if batch.size > self.table.free:
            return None
        bounds = [0, *(np.flatnonzero(np.diff(slots)) + 1).tolist(), batch.size]
        if len(np.unique(slots)) < len(bounds) - 1:
            raise ValueError("a sequence occurs twice in a batch")
        singles: list[tuple[int, int]] = []
        calls: list[AttentionCall] = []
        taken: list[npt.NDArray[np.int64]] = []
        for first, last in pairwise(bounds):
            slot = int(slots[first])
            start = self.table.length(slot)
            expected = np.arange(start, start + last - first)
            if not np.array_equal(batch.positions[first:last], expected):
                raise ValueError("a gap in the positions of a sequence")
            taken.append(self.table.extend(slot, last - first))
            if last - first == 1:
                singles.append((first, slot))
            else:
                calls.append(self._chunk(slot, first, expected))
        cells = self._tensor(np.concatenate(taken))
        return StepPlan(cells, (*self._decoding(singles), *calls))

    def _chunk(self, slot: int, first: int, positions: Positions) -> AttentionCall:
        cells = self.table.cells(slot)
        return AttentionCall(
            slice(first, first + len(positions)),
            self._tensor(cells.copy()),
            1,
            len(cells),
            self._tensor(positions),
            is_chunk=True,
            sees_all=False,
        )

    def _decoding(self, singles: Sequence[tuple[int, int]]) -> list[AttentionCall]:
        """Sequences of similar lengths share a call."""
        ordered = sorted(singles, key=lambda single: self.table.length(single[1]))
        lengths = [self.table.length(slot) for _, slot in ordered]
        parts = split_by_length(lengths, CALL_OVERHEAD_CELLS)
        if len(parts) == 1:  # the order of the batch, in which rows are mostly consecutive
            return [self._group(singles)]
        return [self._group(ordered[start:end]) for start, end in parts]

    def _group(self, singles: Sequence[tuple[int, int]]) -> AttentionCall:
        lengths = np.array([self.table.length(slot) for _, slot in singles])
        longest = int(lengths.max())
        cells = np.empty((len(singles), longest), np.int64)
        for row, (_, slot) in zip(cells, singles, strict=True):
            held = self.table.cells(slot)
            row[: len(held)] = held
            row[len(held) :] = held[0]
        rows = [row for row, _ in singles]
        consecutive = rows == list(range(rows[0], rows[0] + len(rows)))
        return AttentionCall(
            slice(rows[0], rows[-1] + 1) if consecutive else self._tensor(np.array(rows)),
            self._tensor(cells.reshape(-1)),
            len(singles),
            longest,
            self._tensor(lengths - 1),
            is_chunk=False,
            sees_all=bool(lengths.min() == longest),
        )

    def _tensor(self, values: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self.device)
