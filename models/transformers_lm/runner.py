"""One transformers model as the decode loop sees it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models import prepacked_linear
from models.continuous_batching.batch import Batch
from models.continuous_batching.numpy_sampler import NumpySampler
from models.errors import ModelLoadError
from models.structured.constraint import TokenConstraint
from models.transformers_lm.kv_cells import CellTable
from models.transformers_lm.loading import LoadedModel, architecture
from models.transformers_lm.pooled_attention import (
    POOLED,
    PooledCache,
    register_pooled_attention,
)
from models.transformers_lm.self_test import Reference, check_pooled
from models.transformers_lm.step_plan import Planner
from models.transformers_lm.vocabulary import TokenizerVocabulary
from models.types.common import FloatArray
from models.types.generation import SamplingParams

LOGGER = logging.getLogger(__name__)
N_BATCH = 512
SCORING_ROWS = 32
"""Rows of logits beyond one per slot, for scoring prompts."""


class TransformersRunner:
    """A `TokenRunner`: an unmodified model over one pool of keys and values, freed by `close`.

    Takes the model over: from then on it attends over the pool, on CPU with prepacked linears.
    `reference` is what the model computed before. `memory_bytes` is for weights and pool. Raises
    ModelLoadError when the model computes something else now.
    """

    shares_prefixes = True

    def __init__(
        self,
        loaded: LoadedModel,
        vocabulary: TokenizerVocabulary,
        reference: Reference,
        *,
        cells: int,
        slots: int,
    ) -> None:
        self.vocabulary = vocabulary
        self.cells = cells
        self.resident_cells = cells // 2
        self.slots = slots
        self.n_batch = N_BATCH
        self.max_outputs = slots + SCORING_ROWS
        self._model = loaded.model
        self._device: torch.device = loaded.model.device
        self._vocabulary_size = loaded.vocabulary_size
        self._table = CellTable(cells=cells, slots=slots)
        self._planner = Planner(self._table, self._device)
        self._rows: FloatArray = np.empty((0, 0), np.float32)
        self._row_of: dict[int, int] = {}
        self._cache: PooledCache | None = PooledCache(layers=reference.layers, cells=cells)
        self._take_over(reference)
        self.memory_bytes = _bytes(self._model) + cells * reference.kv_bytes_per_cell

    def _take_over(self, reference: Reference) -> None:
        register_pooled_attention()
        model, name = self._model, architecture(self._model.config)
        dtype: torch.dtype = model.dtype
        model.set_attn_implementation(POOLED)
        if model.config.get_text_config()._attn_implementation != POOLED:
            raise ModelLoadError(f"the attention of {name} cannot run over a shared pool")
        if self._device.type == "cpu" and _packable(dtype):
            prepacked_linear.prepack_linears(model)
        fault = check_pooled(self._decode_all, self.copy, reference, dtype)
        if fault is not None:
            LOGGER.warning("%s fails its self-test: %s", name, fault)
            raise ModelLoadError(f"{name} cannot run over a shared pool of keys and values")
        for slot in range(self.slots):
            self.remove(slot)

    def decode(self, batch: Batch) -> bool:
        """Evaluate a batch; False when the pool has no room for it (nothing was changed).

        Raises ValueError for tokens or sequences that are out of range.
        """
        wanted = np.flatnonzero(batch.outputs[: batch.size])
        self._check(batch, len(wanted))
        logits = self._forward(batch, wanted if len(wanted) else np.zeros(1, np.int64))
        if logits is None:
            return False
        self._rows = logits.float().cpu().numpy()
        self._row_of = {int(index): row for row, index in enumerate(wanted)}
        return True

    def _check(self, batch: Batch, outputs: int) -> None:
        tokens = batch.tokens[: batch.size]
        if not 0 < batch.size <= self.n_batch:
            raise ValueError("a batch is empty or larger than n_batch")
        if tokens.min() < 0 or tokens.max() >= self._vocabulary_size:
            raise ValueError("a token id is outside the vocabulary")
        if outputs > self.max_outputs:
            raise ValueError("a batch asks for too many rows of logits")

    def _forward(self, batch: Batch, rows: npt.NDArray[np.int64]) -> Tensor | None:
        """Logits of some entries, [rows, vocabulary]; None when the pool has no room."""
        plan = self._planner.plan(batch)
        if plan is None or self._cache is None:
            return None
        tokens, positions = (
            torch.from_numpy(column[: batch.size].astype(np.int64))[None].to(self._device)
            for column in (batch.tokens, batch.positions)
        )
        with torch.inference_mode(), self._cache.step(plan):
            output = self._model(
                input_ids=tokens,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=torch.from_numpy(rows).to(self._device),
            )
        logits: Tensor = output.logits[0]
        if len(logits) != len(rows):
            raise ValueError("the model does not give the logits that were asked for")
        return logits

    def _decode_all(self, batch: Batch) -> FloatArray:
        logits = self._forward(batch, np.arange(batch.size))
        if logits is None:
            raise ValueError("the pool has no room for a self-test")
        rows: FloatArray = logits.float().cpu().numpy()
        return rows

    def logits(self, index: int) -> FloatArray:
        """Row of logits of batch entry `index`: float32 [vocabulary], valid until the next decode.

        KeyError when the batch did not ask for it.
        """
        row: FloatArray = self._rows[self._row_of[index]]
        return row

    def sampler(self, params: SamplingParams, prompt: Sequence[int]) -> RowSampler:
        return RowSampler(self, params, prompt)

    def copy(self, source: int, target: int, length: int) -> None:
        self._table.copy(source, target, length)

    def remove(self, slot: int) -> None:
        self._table.remove(slot)

    def close(self) -> None:
        self._model = self._cache = None
        self._row_of = {}
        self.vocabulary.close()


class RowSampler:
    """A `Sampler` over the rows of logits of the batch just decoded."""

    def __init__(
        self, runner: TransformersRunner, params: SamplingParams, prompt: Sequence[int]
    ) -> None:
        self._runner = runner
        self._sampler = NumpySampler(params, prompt=prompt, end_tokens=runner.vocabulary.end_tokens)

    def choose(self, index: int, constraint: TokenConstraint | None = None) -> int:
        return self._sampler.choose(self._runner.logits(index), constraint)

    def accept(self, token: int) -> None:
        self._sampler.accept(token)

    def logits(self, index: int) -> FloatArray:
        return self._runner.logits(index)

    def close(self) -> None:
        """Nothing to free."""


def _packable(dtype: torch.dtype) -> bool:
    return dtype in (torch.float32, torch.bfloat16) and prepacked_linear.available()


def _bytes(model: Any) -> int:
    """Bytes of the weights. A prepacked layer is a copy where its weights are another's, too."""
    own = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    layers = (m for m in model.modules() if isinstance(m, prepacked_linear.PrepackedLinear))
    packed = sum(layer.in_features * layer.out_features for layer in layers)
    return int(own + packed * model.dtype.itemsize)
