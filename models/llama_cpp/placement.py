"""Where a GGUF model's memory goes, the host or a GPU, and what fits there."""

from __future__ import annotations

from dataclasses import dataclass

from models.continuous_batching.pool_plan import Pool, PoolWish
from models.llama_cpp.gguf_memory import GgufMemory, KvCache


@dataclass(frozen=True, slots=True)
class StepSizes:
    """What one context is made for: sequences, tokens of a step, rows of logits."""

    slots: int
    n_batch: int
    outputs: int
    cache: KvCache = "f16"


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that may be taken; `gpu` is None where there is none. `share` is what the GPU would
    have room for if nothing else were on it."""

    host: int
    gpu: int | None = None
    share: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """`gpu_layers` as llama.cpp counts them: one more than the model has takes the output, too."""

    pool: Pool
    gpu_layers: int
    host: int
    gpu: int


def needed(memory: GgufMemory, sizes: StepSizes, cells: int, gpu_layers: int) -> tuple[int, int]:
    """(bytes of the host, bytes of the GPU) for a model with its last layers on the GPU.

    `gpu_layers` below zero means all.
    """
    layers = len(memory.blocks)
    whole = gpu_layers < 0 or gpu_layers > layers
    first = 0 if whole else layers - gpu_layers
    step = memory.step(cells=cells, n_batch=sizes.n_batch, outputs=sizes.outputs)

    def of_layers(start: int, stop: int) -> int:
        kept = sizes.slots * sum(memory.state[start:stop])
        cell = memory.kv_bytes_per_cell(sizes.cache, start, stop)
        return sum(memory.blocks[start:stop]) + kept + cells * cell

    output = 0 if memory.tied and not whole else memory.output
    host = of_layers(0, first) + memory.embedding + memory.tables
    gpu = of_layers(first, layers)
    if whole:
        logits = 4 * sizes.outputs * memory.vocabulary
        return host + logits, gpu + output + step
    return host + output + step, gpu + step if first < layers else 0


def placed(
    memory: GgufMemory,
    sizes: StepSizes,
    wish: PoolWish,
    room: Room,
    *,
    gpu_layers: int | None = None,
    generous: bool = False,
) -> Placement:
    """As many layers on the GPU as its share holds with the smallest useful context, then as much
    context as there is room for.

    `gpu_layers` fixes the layers; `generous` lets a pool of which nobody named a size take
    all the room, which is somebody's own. What does not fit comes out in its smallest form, and
    larger than the room: whoever keeps the book refuses it.
    """
    smallest = wish.smallest().cells
    if gpu_layers is None:
        gpu_layers = _layers_that_fit(memory, sizes, smallest, room)
    cell = memory.kv_bytes_per_cell(sizes.cache)
    largest = wish.full() if generous else wish.modest(cell)

    def fits(cells: int) -> bool:
        host, gpu = needed(memory, sizes, cells, gpu_layers)
        return host <= room.host and gpu <= (room.gpu or 0)

    pool = wish.fitted(largest, fits)
    return Placement(pool, gpu_layers, *needed(memory, sizes, pool.cells, gpu_layers))


def _layers_that_fit(memory: GgufMemory, sizes: StepSizes, cells: int, room: Room) -> int:
    share = room.gpu if room.share is None else room.share
    if share is None:
        return 0
    for count in range(len(memory.blocks) + 1, 0, -1):
        if needed(memory, sizes, cells, count)[1] <= share:
            return count
    return 0
