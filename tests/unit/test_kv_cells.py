"""Cells of the transformers engine's pool: shared by count, free when the last holder is gone."""

from __future__ import annotations

import random

import pytest

from models.transformers_lm.kv_cells import CellTable


def test_a_sequence_grows_keeps_its_cells_and_gives_them_back() -> None:
    table = CellTable(cells=200, slots=2)
    first = table.extend(0, 3).tolist()
    table.extend(1, 2)
    table.extend(0, 100)
    assert table.cells(0)[:3].tolist() == first == [0, 1, 2]
    assert len(set(table.cells(0).tolist()) | set(table.cells(1).tolist())) == 105
    assert (table.length(0), table.free) == (103, 95)
    table.remove(0)
    assert (table.length(0), table.free) == (0, 198)


def test_shared_cells_are_free_when_the_last_sequence_is_gone() -> None:
    table = CellTable(cells=10, slots=3)
    table.extend(0, 6)
    table.copy(0, 1, 4)
    table.copy(1, 2, 2)
    table.extend(1, 3)
    assert table.free == 1
    table.remove(0)
    assert table.free == 3
    table.remove(1)
    assert table.free == 8
    assert table.cells(2).tolist() == [0, 1]
    table.remove(2)
    assert table.free == 10


def test_what_cannot_be_is_refused() -> None:
    table = CellTable(cells=4, slots=2)
    table.extend(0, 2)
    with pytest.raises(ValueError, match="fewer free"):
        table.extend(1, 3)
    with pytest.raises(ValueError, match="longer than"):
        table.copy(0, 1, 3)
    table.extend(1, 1)
    with pytest.raises(ValueError, match="not empty"):
        table.copy(0, 1, 1)


def test_any_order_of_changes_keeps_the_account() -> None:
    chance = random.Random(1)
    table = CellTable(cells=64, slots=6)
    model: list[list[int]] = [[] for _ in range(6)]
    for _ in range(3000):
        slot, other = chance.sample(range(6), 2)
        action = chance.random()
        if action < 0.5:
            count = min(chance.randint(1, 6), table.free)
            model[slot] += table.extend(slot, count).tolist()
        elif action < 0.75 and not model[slot]:
            length = chance.randint(0, len(model[other]))
            table.copy(other, slot, length)
            model[slot] = model[other][:length]
        elif action > 0.8:
            table.remove(slot)
            model[slot] = []
        assert [table.cells(i).tolist() for i in range(6)] == model
        assert table.free == 64 - len({cell for cells in model for cell in cells})
