"""How the attention of a step is cut into calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.continuous_batching.batch import Batch
from models.transformers_lm.kv_cells import CellTable
from models.transformers_lm.step_plan import Planner


def planner_with(*lengths: int, cells: int = 4096) -> Planner:
    table = CellTable(cells=cells, slots=8)
    for slot, length in enumerate(lengths):
        table.extend(slot, length)
    return Planner(table, torch.device("cpu"))


def tokens(count: int) -> np.ndarray:
    return np.zeros(count, np.int32)


def test_decoding_sequences_of_similar_length_share_a_padded_call() -> None:
    planner = planner_with(3, 5, 4)
    batch = Batch(8)
    batch.append_singles([2, 0, 1], [4, 3, 5], [1, 1, 1])
    plan = planner.plan(batch)
    assert plan is not None
    (call,) = plan.calls
    assert plan.cells.tolist() == [12, 13, 14]
    assert (call.rows, call.sequences, call.length) == (slice(0, 3), 3, 6)
    assert call.positions.tolist() == [4, 3, 5]
    assert call.cells.view(3, 6).tolist() == [
        [8, 9, 10, 11, 12, 8],  # padded with a cell of their own
        [0, 1, 2, 13, 0, 0],
        [3, 4, 5, 6, 7, 14],
    ]
    assert not call.is_chunk
    assert not call.sees_all


def test_equal_lengths_need_no_mask() -> None:
    planner = planner_with(3, 3)
    batch = Batch(2)
    batch.append_singles([0, 1], [3, 3], [1, 1])
    plan = planner.plan(batch)
    assert plan is not None
    assert plan.calls[0].sees_all


def test_a_long_sequence_does_not_pad_the_short_ones() -> None:
    planner = planner_with(10, 2000, 12, 14)
    batch = Batch(4)
    batch.append_singles([0, 1, 2, 3], [10, 2000, 12, 14], [1] * 4)
    plan = planner.plan(batch)
    assert plan is not None
    short, long = plan.calls
    assert (short.sequences, short.length) == (3, 15)
    assert isinstance(short.rows, torch.Tensor)
    assert short.rows.tolist() == [0, 2, 3]
    assert (long.rows, long.sequences, long.length) == (slice(1, 2), 1, 2001)


def test_chunks_of_prompts_come_after_and_see_what_is_there() -> None:
    planner = planner_with(2, 4)
    batch = Batch(16)
    batch.append_singles([0], [2], [1])
    batch.append(1, 4, tokens(3), outputs=0)
    batch.append(2, 0, tokens(1), outputs=1)
    plan = planner.plan(batch)
    assert plan is not None
    decoding, chunk = plan.calls
    assert isinstance(decoding.rows, torch.Tensor)
    assert decoding.rows.tolist() == [0, 4]  # a prompt's single token is like a decoded one
    assert chunk.is_chunk
    assert (chunk.rows, chunk.length) == (slice(1, 4), 7)
    assert chunk.positions.tolist() == [4, 5, 6]
    assert chunk.cells.tolist() == [2, 3, 4, 5, 7, 8, 9]


def test_a_batch_without_room_changes_nothing() -> None:
    planner = planner_with(6, cells=8)
    batch = Batch(8)
    batch.append(0, 6, tokens(3), outputs=1)
    assert planner.plan(batch) is None
    assert (planner.table.length(0), planner.table.free) == (6, 2)


@pytest.mark.parametrize(
    ("slot", "start", "words"),
    [(0, 5, "gap"), (0, 3, "gap"), (8, 0, "outside"), (-1, 0, "outside")],
)
def test_batches_that_are_refused(slot: int, start: int, words: str) -> None:
    batch = Batch(4)
    batch.append(slot, start, tokens(2), outputs=1)
    with pytest.raises(ValueError, match=words):
        planner_with(4).plan(batch)


def test_a_sequence_may_not_occur_twice() -> None:
    batch = Batch(4)
    batch.append_singles([0, 1, 0], [4, 0, 5], [1, 1, 1])
    with pytest.raises(ValueError, match="twice"):
        planner_with(4).plan(batch)
