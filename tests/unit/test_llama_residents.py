"""How many cells finished sequences may keep: a scan that takes no more than a tenth of a step."""

from __future__ import annotations

import pytest

from models.llama_cpp.gguf_header import GgufHeader
from models.llama_cpp.gguf_memory import GgufMemory
from models.llama_cpp.residents import resident_cells


def resident(
    weights: int, *, layers: int = 30, heads: int = 9, cells: int = 16384, gpu_layers: int = 0
) -> int:
    values = {"general.architecture": "a", "a.attention.head_count": heads}
    memory = GgufMemory(
        (weights,) * max(layers, 1), (384,) * layers, (0,) * layers, 0, 0, True, 100, 576, 1536
    )
    return resident_cells(GgufHeader(values, 0, {}, {}), memory, cells, gpu_layers)


def test_a_small_model_keeps_few_cells_and_a_large_one_half_of_its_pool() -> None:
    small = resident(9_000_000)
    assert 1024 < small < 2048
    assert resident(90_000_000) == 8192
    assert resident(9_000_000, heads=18) < small


@pytest.mark.parametrize("cells", [512, 16384])
def test_one_long_prompt_may_always_stay_where_it_fits(cells: int) -> None:
    assert resident(1000, cells=cells) == min(cells // 2, 1024)


def test_on_a_gpu_and_without_attention_half_of_the_pool_may_stay() -> None:
    assert resident(9_000_000, gpu_layers=30) == 8192
    assert resident(9_000_000, layers=0) == 8192
