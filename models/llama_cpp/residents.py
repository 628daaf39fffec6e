"""How many finished sequences may stay in the KV pool before they slow every step down."""

from __future__ import annotations

from models.llama_cpp.gguf_header import GgufHeader
from models.llama_cpp.gguf_memory import GgufMemory

MAX_SLOWDOWN = 0.1
"""Of a step of one sequence."""
ALWAYS = 1024
"""Cells: a long prompt, or a few short ones."""
SCAN_BYTES = 60
"""llama.cpp's attention looks at the mask of every cell in use, for each head of each layer, also
of cells that belong to other sequences; on a CPU that takes as long as to read so many bytes of
weights (measured on Zen 5: 2.4 ns beside 25 GB/s). A pool of 4,096 such cells made the steps of a
model of 135 million parameters 1.3 times as long, and hardly matters to large models."""


def resident_cells(header: GgufHeader, memory: GgufMemory, cells: int, gpu_layers: int) -> int:
    """At most half of the pool; less, but not less than `ALWAYS`, where a longer scan would take
    more than `MAX_SLOWDOWN`.

    GPUs scan cells in parallel, so nothing is taken off there.
    """
    half = cells // 2
    layers = sum(1 for numbers in memory.kv_numbers if numbers)
    scans = header.number("attention.head_count", 1) * layers
    if gpu_layers or not scans:
        return half
    unnoticed = int(MAX_SLOWDOWN * memory.weights / (SCAN_BYTES * scans))
    return min(half, max(ALWAYS, unnoticed))
