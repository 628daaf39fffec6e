"""How large an engine's context and KV pool are, and which options it refuses."""

from __future__ import annotations

import pytest

from models.continuous_batching.engine_setup import check_counts, pool_sizes
from models.errors import ModelLoadError


@pytest.mark.parametrize(
    ("context", "options", "expected"),
    [
        (8192, {"max_sequences": 4}, (8192, 8192)),
        (8192, {"max_sequences": 16}, (8192, 16384)),
        (8192, {"max_sequences": 1, "n_ctx": 1000}, (1000, 1024)),
        (131072, {"max_sequences": 16}, (16384, 16384)),  # 2 GiB of 128 KiB each
        (131072, {"max_sequences": 16, "n_ctx": 32768}, (32768, 32768)),  # asked for
        (131072, {"max_sequences": 16, "kv_cells": 5000}, (5120, 5120)),
    ],
)
def test_pool_sizes(context: int, options: dict[str, int], expected: tuple[int, int]) -> None:
    chosen = {"n_ctx": None, "kv_cells": None, **options}
    assert pool_sizes(context, 128 * 1024, **chosen) == expected  # type: ignore[arg-type]


def test_counts_below_one_are_refused() -> None:
    check_counts(None, 1, 7)
    with pytest.raises(ModelLoadError, match="smaller than one"):
        check_counts(1, 0)
