"""How large a context and a KV pool are: as asked for, and as memory allows."""

from __future__ import annotations

from typing import Any

import pytest

from models.continuous_batching.pool_plan import Pool, PoolWish

KIB, GIB = 1024, 2**30


@pytest.mark.parametrize(
    ("trained", "options", "expected"),
    [
        (8192, {"max_sequences": 4}, (8192, 8192)),
        (8192, {"max_sequences": 16}, (8192, 16384)),
        (8192, {"max_sequences": 1, "n_ctx": 1000}, (1000, 1024)),
        (131072, {"max_sequences": 16}, (16384, 16384)),  # 2 GiB of 128 KiB each
        (131072, {"max_sequences": 16, "n_ctx": 32768}, (32768, 32768)),  # asked for
        (131072, {"max_sequences": 16, "kv_cells": 5000}, (5120, 5120)),
        (1024, {"n_ctx": 4096, "max_sequences": 1}, (1024, 1024)),  # more than it was trained for
    ],
)
def test_a_pool_within_reason(
    trained: int, options: dict[str, Any], expected: tuple[int, int]
) -> None:
    assert PoolWish(trained, **options).modest(128 * KIB) == Pool(*expected)


def test_a_pool_of_ones_own() -> None:
    assert PoolWish(131072).full() == Pool(131072, 131072)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (2048, 2048)),
        ({"min_context": 5000}, (5000, 5120)),
        ({"n_ctx": 1000, "min_context": 5000}, (1000, 1024)),
        ({"min_context": 100_000}, (8192, 8192)),
    ],
)
def test_the_smallest_useful_pool(options: dict[str, Any], expected: tuple[int, int]) -> None:
    assert PoolWish(8192, **options).smallest() == Pool(*expected)


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (20_000, (8192, 16384)),
        (16_383, (8192, 16128)),
        (9_000, (8192, 8960)),
        (5_000, (4864, 4864)),
        (2_048, (2048, 2048)),
        (2_047, (2048, 2048)),  # never squeezed: whoever keeps the book refuses it
        (0, (2048, 2048)),
    ],
)
def test_what_memory_allows(room: int, expected: tuple[int, int]) -> None:
    wish = PoolWish(8192, max_sequences=16)
    assert wish.fitted(wish.full(), lambda cells: cells <= room) == Pool(*expected)
