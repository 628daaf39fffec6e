"""What a GGUF file takes in memory, from its header: layers of every kind, the host and the GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.continuous_batching.pool_plan import PoolWish
from models.llama_cpp.gguf_header import GgufHeader, read_gguf_header
from models.llama_cpp.gguf_memory import GgufMemory, gguf_memory
from models.llama_cpp.placement import Room, StepSizes, needed, placed
from tests.tiny_gguf import FEED_FORWARD, HEADS, KV_HEADS, LAYERS, WIDTH, write_gguf

FILE = Path("model.gguf")
MIB = 2**20


def header(blocks: list[list[str]], **values: Any) -> GgufHeader:
    names = [f"blk.{i}.{name}" for i, found in enumerate(blocks) for name in found]
    named = {f"a.{key}": value for key, value in values.items()}
    return GgufHeader(
        {"general.architecture": "a", "a.block_count": len(blocks), **named},
        len(names),
        {},
        dict.fromkeys(names, 100),
    )


def kv(blocks: list[list[str]], **values: Any) -> tuple[int, ...]:
    return gguf_memory(FILE, header(blocks, **values)).kv_numbers


def test_a_whole_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf")
    found = gguf_memory(path, read_gguf_header(path))
    assert found.kv_bytes_per_cell() == LAYERS * KV_HEADS * (WIDTH // HEADS) * 2 * 2
    assert found.weights == sum(read_gguf_header(path).tensors.values())
    assert found.embedding == 4 * WIDTH * found.vocabulary
    assert (found.tied, found.output) == (False, found.embedding + 4 * WIDTH)
    assert (found.width, found.feed_forward) == (WIDTH, FEED_FORWARD)


LENGTHS = {"attention.head_count": 8, "embedding_length": 64}


def test_grouped_heads_and_lengths_of_their_own() -> None:
    blocks = [["attn_k.weight"]] * 2
    assert kv(blocks, **LENGTHS) == (8 * 16, 8 * 16)
    assert kv(blocks, **LENGTHS, **{"attention.head_count_kv": 2}) == (2 * 16, 2 * 16)
    own = {"attention.key_length": 10, "attention.value_length": 6, "attention.head_count_kv": 1}
    assert kv(blocks, **LENGTHS, **own) == (16, 16)
    swa = {**own, "attention.key_length_swa": 20}
    assert kv(blocks, **LENGTHS, **swa) == (26, 26)
    per_layer = {"attention.head_count_kv": (1, 3)}
    assert kv(blocks, **LENGTHS, **per_layer) == (16, 48)
    assert kv(blocks, **LENGTHS, **{"attention.head_count_kv": (3,)}) == (48, 48)


def test_latent_attention_counts_with_keys_and_values() -> None:
    latent = {
        "attention.head_count_kv": 1, "attention.key_length": 576, "attention.value_length": 512,
    }  # fmt: skip
    assert kv([["attn_kv_a_mqa.weight"]], **LENGTHS, **latent) == (1088,)


STATE = {
    "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.conv_kernel": 4, "ssm.group_count": 1,
}  # fmt: skip


def test_recurrent_layers_have_a_state_and_no_cells() -> None:
    blocks = [["ssm_in.weight"], ["attn_k.weight"], ["ssm_a", "attn_qkv.weight"]]
    found = gguf_memory(FILE, header(blocks, **LENGTHS, **STATE))
    assert found.kv_numbers == (0, 128, 0)
    state = 4 * (3 * (128 + 32) + 128 * 16)
    assert found.state == (state, 0, state)
    rwkv = header([["time_mix_key.weight"]], embedding_length=64, **{
        "wkv.head_size": 16, "token_shift_count": 2,
    })  # fmt: skip
    assert gguf_memory(FILE, rwkv).state == (4 * (64 * 16 + 128),)


def test_layers_of_names_that_nobody_knows_count_as_attention() -> None:
    assert kv([["strange.weight"], ["other.weight"]], **LENGTHS) == (128, 128)


def test_all_parts_of_a_split_file(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf")
    first = tmp_path / "m-00001-of-00002.gguf"
    first.write_bytes(whole.read_bytes())
    second = write_gguf(tmp_path / "m-00002-of-00002.gguf", width=64)
    found = gguf_memory(first, read_gguf_header(first))
    assert found.weights == sum(read_gguf_header(second).tensors.values())


# --- placement ----------------------------------------------------------------------------------

MEMORY = GgufMemory(
    blocks=(100 * MIB,) * 4,
    kv_numbers=(1024,) * 4,  # 2 KiB a cell and layer
    state=(0,) * 4,
    embedding=50 * MIB,
    output=60 * MIB,
    tied=False,
    vocabulary=1000,
    width=256,
    feed_forward=1024,
)
SIZES = StepSizes(slots=4, n_batch=512, outputs=8)
STEP = 2 * 512 * 2048 + 4 * 512 * (2 * 1024 + 10 * 256) + 4 * 8 * 1000 // 2
CELLS_OF_LAYER = 2048 * 2048  # 2048 cells of 2 KiB


def test_everything_on_the_host() -> None:
    host, gpu = needed(MEMORY, SIZES, 2048, 0)
    assert gpu == 0
    assert host == 510 * MIB + 4 * CELLS_OF_LAYER + STEP + 512 * 1000


def test_everything_on_the_gpu_but_the_table_of_tokens() -> None:
    host, gpu = needed(MEMORY, SIZES, 2048, -1)
    assert needed(MEMORY, SIZES, 2048, 5) == (host, gpu)
    assert gpu == 460 * MIB + 4 * CELLS_OF_LAYER + STEP
    assert host == 50 * MIB + 512 * 1000 + 4 * 8 * 1000


def test_the_last_layers_on_the_gpu_bring_their_cells() -> None:
    host, gpu = needed(MEMORY, SIZES, 2048, 3)
    assert gpu == 300 * MIB + 3 * CELLS_OF_LAYER + STEP
    assert host == 210 * MIB + CELLS_OF_LAYER + STEP + 512 * 1000
    tied = replace(MEMORY, tied=True, output=50 * MIB)
    assert needed(tied, SIZES, 2048, 3)[0] == host - 60 * MIB
    assert needed(tied, SIZES, 2048, -1)[1] == needed(MEMORY, SIZES, 2048, -1)[1] - 10 * MIB


WISH = PoolWish(8192, n_ctx=8192, max_sequences=4)


@pytest.mark.parametrize(
    ("gpu_mib", "layers", "context"),
    [
        (2000, 5, 8192),
        (540, 5, 8192),  # 460 and 64 of cells
        (510, 5, 4096),  # all layers with less context
        (480, 4, 6400),  # without the output
        (400, 3, 8192),
        (120, 1, 3584),  # layers are worth more
        (90, 0, 8192),
    ],
)
def test_layers_first_then_context(gpu_mib: int, layers: int, context: int) -> None:
    found = placed(MEMORY, SIZES, WISH, Room(host=4000 * MIB, gpu=gpu_mib * MIB))
    assert found.gpu_layers == layers
    assert found.gpu <= gpu_mib * MIB
    assert found.pool.context == pytest.approx(context, rel=0.3)
    larger = needed(MEMORY, SIZES, found.pool.cells + 256, layers)[1]
    assert found.pool.cells == 8192 or larger > gpu_mib * MIB


def test_fixed_layers_that_do_not_fit_come_out_larger_than_the_room() -> None:
    found = placed(MEMORY, SIZES, WISH, Room(4000 * MIB, gpu=100 * MIB), gpu_layers=-1)
    assert found.pool.context == 2048
    assert found.gpu > 100 * MIB


def test_room_of_ones_own_is_used() -> None:
    wish = PoolWish(1 << 20, max_sequences=4)
    wide = replace(MEMORY, kv_numbers=(16384,) * 4)  # 128 KiB a cell
    room = Room(host=8 << 30)
    modest, generous = (placed(wide, SIZES, wish, room, generous=g) for g in (False, True))
    assert modest.pool.cells == (2 << 30) // (128 << 10)
    assert generous.pool.cells > 3 * modest.pool.cells
    assert generous.host <= room.host
