"""The transformers generation engine: continuous batching on one thread of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from models.base import StepListener
from models.continuous_batching.decode_loop import CACHED_SEQUENCES, DecodeLoop
from models.continuous_batching.engine_setup import chat_form, check_counts
from models.continuous_batching.engine_thread import EngineThread
from models.continuous_batching.generator import ContinuousGenerator
from models.continuous_batching.pacing import MAX_STALL, PaceLimits
from models.continuous_batching.pool_plan import PoolWish
from models.errors import ModelLoadError
from models.torch_cpu import use_cpu_threads
from models.transformers_lm.loading import load_causal_lm
from models.transformers_lm.precision import Dtype
from models.transformers_lm.runner import N_BATCH, TransformersRunner
from models.transformers_lm.self_test import reference_of
from models.transformers_lm.vocabulary import TokenizerVocabulary


class TransformersGenerator(ContinuousGenerator):
    """A `Generator` over a Hugging Face folder. The constructor blocks until it is loaded.

    `path` is the folder, with safetensors weights; a GGUF file works too, dequantised. `dtype`
    "auto" is explained in `precision.chosen_dtype`. The other options are those of
    `LlamaCppGenerator`. Raises ModelLoadError, also for models that cannot run over a shared pool
    of keys and values.
    """

    def __init__(
        self,
        path: Path,
        listener: StepListener,
        *,
        n_ctx: int | None = None,
        max_sequences: int = 16,
        n_threads: int,
        device: str = "cpu",
        dtype: Dtype = "auto",
        kv_cells: int | None = None,
        max_queued: int = 256,
        max_stall: float = MAX_STALL,
        chat_template: str | None = None,
    ) -> None:
        check_counts(n_ctx, max_sequences, n_threads, kv_cells, max_queued)

        def load() -> DecodeLoop:
            use_cpu_threads(n_threads)
            loaded = load_causal_lm(path, dtype=dtype, device=torch.device(device))
            vocabulary = TokenizerVocabulary(
                loaded.tokenizer, size=loaded.vocabulary_size, end_tokens=loaded.end_tokens
            )
            self._form = chat_form(chat_template or loaded.chat_template, vocabulary)
            reference = reference_of(loaded, vocabulary)
            wish = PoolWish(loaded.context_length, n_ctx, kv_cells, max_sequences)
            pool = wish.modest(reference.kv_bytes_per_cell)
            self._context_length = pool.context
            slots = min(max_sequences + CACHED_SEQUENCES, N_BATCH)  # all may decode in one step
            runner = TransformersRunner(
                loaded, vocabulary, reference, cells=pool.cells, slots=slots
            )
            self._runner = runner
            limits = PaceLimits(max_stall=max_stall)
            return DecodeLoop(runner, max_sequences=max_sequences, limits=limits)

        try:
            torch.device(device)
        except RuntimeError as error:
            raise ModelLoadError(f"'{device}' is not a device that torch knows") from error
        engine = EngineThread(
            load, listener, max_open=max_sequences + max_queued, name="transformers-engine"
        )
        template, form = self._form
        super().__init__(
            engine,
            self._runner.vocabulary,
            template,
            form,
            context_length=self._context_length,
            memory_bytes=self._runner.memory_bytes,
        )
