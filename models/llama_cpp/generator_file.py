"""A GGUF file for generation, checked and measured before llama.cpp sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.continuous_batching.decode_loop import CACHED_SEQUENCES
from models.errors import ModelLoadError
from models.llama_cpp.gguf_header import GgufHeader, read_gguf_header
from models.llama_cpp.gguf_memory import GgufMemory, check_cache, gguf_memory
from models.llama_cpp.placement import StepSizes

N_BATCH = 512
MAX_SLOTS = 256
"""Sequences that llama.cpp can tell apart in one context."""
SCORING_ROWS = 32
"""Rows of logits beyond one per slot, for scoring prompts."""


@dataclass(frozen=True, slots=True)
class GeneratorFile:
    """What its header says, and what a context for it is made for."""

    header: GgufHeader
    memory: GgufMemory
    sizes: StepSizes


def read_generator_file(path: Path, max_sequences: int, kv_cache: str) -> GeneratorFile:
    """Raises ModelLoadError when the file does not generate text or the cache does not fit it."""
    header = read_gguf_header(path)
    if header.context_length <= 0:
        raise ModelLoadError("this GGUF file does not state a context length")
    if not header.is_causal:
        raise ModelLoadError("this model does not generate text")
    slots = min(max_sequences + CACHED_SEQUENCES, MAX_SLOTS)
    cache = check_cache(kv_cache, header)
    sizes = StepSizes(slots, N_BATCH, slots + SCORING_ROWS, cache)
    return GeneratorFile(header, gguf_memory(path, header), sizes)
