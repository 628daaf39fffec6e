"""The llama.cpp generation engine: continuous batching on one thread of its own."""

from __future__ import annotations

import logging
from pathlib import Path

from models.base import StepListener
from models.continuous_batching.decode_loop import DecodeLoop
from models.continuous_batching.engine_setup import chat_form, check_counts
from models.continuous_batching.engine_thread import EngineThread
from models.continuous_batching.generator import ContinuousGenerator
from models.continuous_batching.pacing import MAX_STALL, PaceLimits
from models.continuous_batching.pool_plan import PoolWish
from models.errors import ModelLoadError
from models.llama_cpp.bindings import NativeModel
from models.llama_cpp.generator_file import read_generator_file
from models.llama_cpp.gguf_header import GgufHeader
from models.llama_cpp.gguf_memory import KvCache
from models.llama_cpp.placement import StepSizes, needed
from models.llama_cpp.residents import resident_cells
from models.llama_cpp.runner import LlamaRunner

SLOW_FORMATS = {3: "Q4_1", 7: "Q5_1"}
"""Formats (`enum ggml_type`) in which llama.cpp computes a batch one row after the other on CPUs:
64 rows took 38 and 41 times as long as one, in the other formats 7 to 27 times."""
_log = logging.getLogger(__name__)


class LlamaCppGenerator(ContinuousGenerator):
    """A `Generator` over one GGUF file. The constructor blocks until the model is loaded.

    `path` is the GGUF file; `listener` is called on the engine's thread, once per step.
    `n_threads` should be the number of CPUs this engine owns: more threads than free cores are
    slower than one. `kv_cells` is the size of the KV pool in tokens. `max_queued` bounds the
    requests beyond the `max_sequences` that can run. `max_stall` bounds the length of a step that
    takes prompts along, in plain decode steps. `chat_template` replaces the one in the file.
    `kv_cache` "q8_0" halves the memory of keys and values. Raises ModelLoadError.
    """

    def __init__(
        self,
        path: Path,
        listener: StepListener,
        *,
        n_ctx: int | None = None,
        max_sequences: int = 16,
        n_threads: int,
        n_gpu_layers: int = 0,
        kv_cells: int | None = None,
        max_queued: int = 256,
        max_stall: float = MAX_STALL,
        chat_template: str | None = None,
        kv_cache: KvCache = "f16",
    ) -> None:
        check_counts(n_ctx, max_sequences, n_threads, kv_cells, max_queued)
        file = read_generator_file(path, max_sequences, kv_cache)
        if n_gpu_layers == 0:
            _warn_of_slow_format(file.header)
        wish = PoolWish(file.header.context_length, n_ctx, kv_cells, max_sequences)
        pool = wish.modest(file.memory.kv_bytes_per_cell(kv_cache))

        def load() -> DecodeLoop:
            model = NativeModel(path, n_gpu_layers=n_gpu_layers)
            self._model = model
            resident = resident_cells(file.header, file.memory, pool.cells, n_gpu_layers)
            runner = _runner(model, file.sizes, pool.cells, resident, n_threads)
            limits = PaceLimits(max_stall=max_stall)
            return DecodeLoop(runner, max_sequences=max_sequences, limits=limits)

        engine = EngineThread(
            load, listener, max_open=max_sequences + max_queued, name="llama-engine"
        )
        try:
            template, form = chat_form(chat_template or file.header.chat_template, self._model)
        except ModelLoadError:
            engine.close()
            raise
        super().__init__(
            engine,
            self._model,
            template,
            form,
            context_length=pool.context,
            memory_bytes=sum(needed(file.memory, file.sizes, pool.cells, n_gpu_layers)),
        )


def _warn_of_slow_format(header: GgufHeader) -> None:
    name = SLOW_FORMATS.get(header.main_format or 0)
    if name is not None:
        _log.warning(
            "a GGUF file in the format %s is slow on CPUs when several requests run at once: use "
            "a file of the same model in Q8_0, Q4_K_M or BF16 (docs/models.md, Formats and speed)",
            name,
        )


def _runner(
    model: NativeModel, sizes: StepSizes, cells: int, resident: int, n_threads: int
) -> LlamaRunner:
    try:
        if not model.is_generator:
            raise ModelLoadError("this model does not generate text")
        return LlamaRunner(
            model,
            cells=cells,
            slots=sizes.slots,
            n_threads=n_threads,
            kv_cache=sizes.cache,
            resident_cells=resident,
        )
    except BaseException:
        model.close()
        raise
