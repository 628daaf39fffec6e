"""One GGUF model as the decode loop sees it."""

from __future__ import annotations

from collections.abc import Sequence

from models.continuous_batching.batch import Batch
from models.llama_cpp.bindings import NativeContext, NativeModel
from models.llama_cpp.generator_file import N_BATCH, SCORING_ROWS
from models.llama_cpp.gguf_memory import KvCache
from models.llama_cpp.sampling import TokenSampler
from models.types.generation import SamplingParams


class LlamaRunner:
    """A `TokenRunner`: weights, KV pool and compute buffers, all freed by `close`."""

    def __init__(
        self,
        model: NativeModel,
        *,
        cells: int,
        slots: int,
        n_threads: int,
        kv_cache: KvCache = "f16",
        resident_cells: int | None = None,
    ) -> None:
        self.vocabulary = model
        self.slots = slots
        self.n_batch = N_BATCH
        self.max_outputs = slots + SCORING_ROWS
        self._context = NativeContext(
            model,
            cells=cells,
            slots=slots,
            n_batch=N_BATCH,
            max_outputs=self.max_outputs,
            n_threads=n_threads,
            kv_cache=kv_cache,
        )
        self.cells = self._context.cells
        self.resident_cells = self.cells // 2 if resident_cells is None else resident_cells
        self.shares_prefixes = model.shares_prefixes
        self._warm_up()

    def _warm_up(self) -> None:
        """Page in the weights and start the thread pool, so that the first request is not slow."""
        batch = Batch(1)
        batch.append_singles([0], [0], [self.vocabulary.bos or 0])
        for _ in range(2):
            self._context.decode(batch)
            self._context.clear()

    def decode(self, batch: Batch) -> bool:
        return self._context.decode(batch)

    def sampler(self, params: SamplingParams, prompt: Sequence[int]) -> TokenSampler:
        return TokenSampler(
            self._context,
            params,
            prompt=prompt,
            vocabulary_size=self.vocabulary.size,
            window=self.cells,
            end_tokens=self.vocabulary.end_tokens,
        )

    def copy(self, source: int, target: int, length: int) -> None:
        self._context.copy(source, target, length)

    def remove(self, slot: int) -> None:
        self._context.remove(slot)

    def close(self) -> None:
        self._context.close()
        self.vocabulary.close()
