"""The llama.cpp generation engine: continuous batching on one thread of its own."""

from __future__ import annotations

from pathlib import Path

from models.base import StepListener
from models.chat.format import ChatFormat
from models.chat.template import ChatTemplate
from models.continuous_batching.decode_loop import CACHED_SEQUENCES, DecodeLoop
from models.continuous_batching.engine_thread import EngineThread
from models.continuous_batching.generator import ContinuousGenerator
from models.continuous_batching.pacing import PaceLimits
from models.errors import ModelLoadError
from models.llama_cpp.bindings import MAX_SLOTS, NativeModel
from models.llama_cpp.gguf_header import GgufHeader, read_gguf_header
from models.llama_cpp.runner import LlamaRunner

CELLS_PER_SEQUENCE = 1024
DEFAULT_KV_BYTES = 2 * 2**30
MIN_CELLS = 2048
CELL_STEP = 256  # llama.cpp rounds the pool up to this


def pool_sizes(
    header: GgufHeader,
    *,
    n_ctx: int | None,
    kv_cells: int | None,
    max_sequences: int,
) -> tuple[int, int]:
    """(context length of one request, KV cells of all of them), in tokens.

    The context is the trained one or `n_ctx`, whichever is smaller. The pool holds one full
    context or 1024 tokens for each sequence, whichever is more. Without `n_ctx` and `kv_cells` it
    is bounded to 2 GiB (but at least 2048 cells), and a context never exceeds the pool.
    """
    context = min(n_ctx or header.context_length, header.context_length)
    if kv_cells is None:
        kv_cells = max(context, max_sequences * CELLS_PER_SEQUENCE)
        if n_ctx is None:
            affordable = DEFAULT_KV_BYTES // max(header.kv_bytes_per_cell, 1)
            kv_cells = min(kv_cells, max(affordable, MIN_CELLS))
    cells = -(-kv_cells // CELL_STEP) * CELL_STEP
    return min(context, cells), cells


class LlamaCppGenerator(ContinuousGenerator):
    """A `Generator` over one GGUF file. The constructor blocks until the model is loaded.

    `path` is the GGUF file; `listener` is called on the engine's thread, once per step.
    `n_threads` should be the number of CPUs this engine owns: more threads than free cores are
    slower than one. `kv_cells` is the size of the KV pool in tokens. `max_queued` bounds the
    requests beyond the `max_sequences` that can run. `max_stall` bounds the length of a step that
    takes prompts along, in plain decode steps. `chat_template` replaces the one in the file.
    Raises ModelLoadError.
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
        max_stall: float = 2.5,
        chat_template: str | None = None,
    ) -> None:
        _check_options(n_ctx, max_sequences, n_threads, kv_cells, max_queued)
        header = read_gguf_header(path)
        if header.context_length <= 0:
            raise ModelLoadError("this GGUF file does not state a context length")
        context_length, cells = pool_sizes(
            header, n_ctx=n_ctx, kv_cells=kv_cells, max_sequences=max_sequences
        )

        def load() -> DecodeLoop:
            model = NativeModel(path, n_gpu_layers=n_gpu_layers)
            self._model = model
            runner = _runner(model, cells, max_sequences, n_threads)
            limits = PaceLimits(max_stall=max_stall)
            return DecodeLoop(runner, max_sequences=max_sequences, limits=limits)

        engine = EngineThread(
            load, listener, max_open=max_sequences + max_queued, name="llama-engine"
        )
        source = chat_template or header.chat_template
        try:
            template = _chat_template(source, self._model)
        except ModelLoadError:
            engine.close()
            raise
        super().__init__(
            engine,
            self._model,
            template,
            ChatFormat.detect(source, self._model.control_tokens) if source else None,
            context_length=context_length,
            memory_bytes=self._model.size_bytes + cells * header.kv_bytes_per_cell,
        )


def _check_options(*numbers: int | None) -> None:
    if any(number is not None and number < 1 for number in numbers):
        raise ModelLoadError("an engine option that counts something is smaller than one")


def _runner(model: NativeModel, cells: int, max_sequences: int, n_threads: int) -> LlamaRunner:
    slots = min(max_sequences + CACHED_SEQUENCES, MAX_SLOTS)
    try:
        if not model.is_generator:
            raise ModelLoadError("this model does not generate text")
        return LlamaRunner(model, cells=cells, slots=slots, n_threads=n_threads)
    except BaseException:
        model.close()
        raise


def _chat_template(source: str | None, model: NativeModel) -> ChatTemplate | None:
    if source is None:
        return None
    try:
        return ChatTemplate(
            source,
            bos_token=model.bos_text,
            eos_token=model.eos_text,
            control_texts=model.control_tokens,
        )
    except ValueError as error:
        raise ModelLoadError(f"this model cannot chat: {error}") from error
