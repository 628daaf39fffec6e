"""How much memory a GGUF file takes once it is loaded, told from its header alone.

Weights are exact. Keys and values follow llama.cpp's own arithmetic and err on the large side where
an architecture keeps less: latent attention counts with keys and values, sliding windows and
layers that share their cache with full ones. Buffers of computation were fitted to what llama.cpp
reports (llama-cpp-python 0.3.36, flash attention on).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from models.errors import ModelLoadError
from models.llama_cpp.gguf_header import GgufHeader, read_gguf_header

KvCache = Literal["f16", "q8_0"]
KV_SIZES: dict[str, int] = {"f16": 64, "q8_0": 34}
"""Bytes of 32 numbers."""
VOCABULARY_BYTES = 512
"""Of a token in llama.cpp's tables and in ours."""
STEP_NUMBERS = 10
"""Widths of the model that the buffers of one token's computation take, beside the feed-forward."""
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_SPLIT = re.compile(r"-00001-of-(\d{5})\.gguf$", re.IGNORECASE)
_KEYS = ("attn_k.", "attn_kv_", "attn_k_b", "attn_qkv")
_STATES = ("ssm_", "time_mix_", "shortconv")
MAX_PARTS = 1000


@dataclass(frozen=True, slots=True)
class GgufMemory:
    """Bytes, unless said otherwise. `blocks`, `kv_numbers` and `state` have an entry per layer."""

    blocks: tuple[int, ...]
    """Weights."""
    kv_numbers: tuple[int, ...]
    """Numbers of keys and values that one token has; 0 in layers without attention."""
    state: tuple[int, ...]
    """What one sequence has in a recurrent layer, however long it is."""
    embedding: int
    """The table of tokens, which stays in the host's memory."""
    output: int
    """What comes after the last layer; the table once more where it is tied."""
    tied: bool
    vocabulary: int
    """Tokens."""
    width: int
    feed_forward: int

    @property
    def weights(self) -> int:
        return sum(self.blocks) + self.embedding + (0 if self.tied else self.output)

    def kv_bytes_per_cell(
        self, cache: KvCache = "f16", first: int = 0, end: int | None = None
    ) -> int:
        """Of one token, in the layers from `first` to `end`."""
        return sum(self.kv_numbers[first:end]) * KV_SIZES[cache] // 32

    def step(self, *, cells: int, n_batch: int, outputs: int) -> int:
        """Buffers of one step: the mask and the activations, or the logits, and what is kept."""
        logits = outputs * self.vocabulary * 4
        numbers = 2 * self.feed_forward + STEP_NUMBERS * self.width
        return max(logits, 2 * cells * n_batch + 4 * n_batch * numbers) + logits // 2

    @property
    def tables(self) -> int:
        return self.vocabulary * VOCABULARY_BYTES


def check_cache(cache: str, header: GgufHeader) -> KvCache:
    """Raises ModelLoadError for another format, and for heads that the format does not fit."""
    if cache not in get_args(KvCache):
        raise ModelLoadError(f"'kv_cache' is one of {', '.join(get_args(KvCache))}")
    if cache == "q8_0" and any(length % 32 for length in _head_lengths(header)):
        raise ModelLoadError("the heads of this model are not a multiple of 32: no q8_0 cache")
    return "q8_0" if cache == "q8_0" else "f16"


def gguf_memory(path: Path, header: GgufHeader) -> GgufMemory:
    """Of the file whose header was read, and of its other parts. Raises ModelLoadError."""
    tensors = dict(header.tensors)
    for part in _other_parts(path):
        tensors |= read_gguf_header(part).tensors
    layers = header.number("block_count")
    names: list[set[str]] = [set() for _ in range(layers)]
    blocks, outside = [0] * layers, dict[str, int]()
    for name, size in tensors.items():
        place = _BLOCK.match(name)
        index = int(place[1]) if place else layers
        if place is None or index >= layers:
            outside[name] = size
        else:
            blocks[index] += size
            names[index].add(place[2])
    embedding = sum(size for name, size in outside.items() if name.startswith("token_embd"))
    tied = "output.weight" not in outside
    return GgufMemory(
        tuple(blocks),
        _kv_numbers(header, names),
        tuple(_state(header) if _has(found, _STATES) else 0 for found in names),
        embedding,
        embedding if tied else sum(outside.values()) - embedding,
        tied,
        header.vocabulary,
        header.number("embedding_length"),
        max(
            header.number("feed_forward_length"),
            header.number("expert_feed_forward_length") * header.number("expert_used_count"),
        ),
    )


def _other_parts(path: Path) -> list[Path]:
    split = _SPLIT.search(path.name)
    if split is None:
        return []
    stem = path.name[: split.start()]
    count = min(int(split[1]), MAX_PARTS)
    return [path.with_name(f"{stem}-{n:05d}-of-{split[1]}.gguf") for n in range(2, count + 1)]


def _kv_numbers(header: GgufHeader, names: list[set[str]]) -> tuple[int, ...]:
    """All layers have keys where no name tells which."""
    heads = header.number("attention.head_count", 1)
    stated = header.values.get(f"{header.architecture}.attention.head_count_kv", heads)
    per_layer = stated if isinstance(stated, tuple) else (stated,) * len(names)
    counts = [int(n) for n in per_layer][: len(names)]
    counts += [max(counts, default=heads)] * (len(names) - len(counts))
    attends = [_attends(found) for found in names]
    known = any(attends)
    length = sum(_head_lengths(header))
    return tuple(
        count * length if has or not known else 0
        for count, has in zip(counts, attends, strict=True)
    )


def _attends(names: set[str]) -> bool:
    """A fused projection belongs to a recurrent layer when it stands beside a state's tensors."""
    keys = _KEYS[:-1] if _has(names, _STATES) else _KEYS
    return _has(names, keys)


def _head_lengths(header: GgufHeader) -> tuple[int, int]:
    """Numbers of a key and of a value, the longer ones where layers differ."""
    width = header.number("embedding_length") // max(header.number("attention.head_count", 1), 1)
    key, value = (
        max(header.number(f"attention.{name}", width), header.number(f"attention.{name}_swa"))
        for name in ("key_length", "value_length")
    )
    return key, value


def _state(header: GgufHeader) -> int:
    """Float32 numbers of convolution and state (Mamba), or of a head's matrix (RWKV)."""
    inner, rank = header.number("ssm.inner_size"), header.number("ssm.state_size")
    width = header.number("embedding_length")
    window = max(header.number("ssm.conv_kernel"), header.number("shortconv.l_cache"), 1) - 1
    channels = inner + 2 * header.number("ssm.group_count") * rank if inner else width
    recurrent = inner * rank + width * header.number("wkv.head_size")
    shifted = width * header.number("token_shift_count")
    return 4 * (window * channels + recurrent + shifted)


def _has(names: set[str], beginnings: tuple[str, ...]) -> bool:
    return any(name.startswith(beginnings) for name in names)
