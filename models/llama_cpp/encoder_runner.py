"""One GGUF encoder: token sequences in any order to one vector each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.continuous_batching.batch import Batch
from models.encoders.tokenization import TokenSequence
from models.errors import EngineDeadError
from models.llama_cpp.bindings import NativeContext, NativeEncoder, NativeModel
from models.types.common import FloatArray

SLOTS = 64
"""Sequences of one call; more gain nothing, and each has a cost in llama.cpp's graph."""


@dataclass(frozen=True, slots=True)
class CallSizes:
    """Bounds of one call: of its longest input, of its tokens, of the threads that it takes."""

    max_tokens: int
    batch_tokens: int
    n_threads: int

    @property
    def n_batch(self) -> int:
        return max(self.max_tokens, self.batch_tokens)


class EncoderRunner:
    """Gives what `pooling` makes of a sequence.

    The context is made by the first call and serves the thread of that call alone: OpenMP keeps a
    team of threads for each thread that computes, and two teams halve the speed of both.
    """

    def __init__(self, model: NativeModel, sizes: CallSizes, pooling: str) -> None:
        self.model = model
        self.sizes = sizes
        self._pooling = pooling
        self._batch = Batch(sizes.n_batch)
        self._context: NativeEncoder | NativeContext | None = None

    def __call__(self, sequences: list[TokenSequence]) -> list[FloatArray]:
        """Raises EngineDeadError when the computation fails: the context cannot be trusted then."""
        rows: list[FloatArray] = []
        for part in _parts(sequences, self.sizes.n_batch):
            try:
                rows += self._computed(part)
            except RuntimeError as error:
                raise EngineDeadError("The model failed.") from error
        return rows

    def free(self) -> None:
        """Free context and weights; only after the last call has returned."""
        if self._context is not None:
            self._context.close()
            self._context = None
        self.model.close()

    def _computed(self, part: Sequence[TokenSequence]) -> list[FloatArray]:
        if not isinstance(self._context, NativeEncoder):
            self._context = NativeEncoder(
                self.model,
                pooling=self._pooling,
                n_batch=self.sizes.n_batch,
                slots=SLOTS,
                n_threads=self.sizes.n_threads,
            )
        self._fill(part, outputs=None)
        return self._context.encode(self._batch, len(part))

    def _fill(self, part: Sequence[TokenSequence], outputs: int | None) -> list[int]:
        """A sequence for each slot; returns the places of their last tokens."""
        self._batch.clear()
        return [
            self._batch.append(
                slot,
                0,
                np.asarray(sequence.ids, np.int32),
                outputs=len(sequence) if outputs is None else outputs,
            )
            for slot, sequence in enumerate(part)
        ]


class AnswerRunner(EncoderRunner):
    """Gives the logits of some tokens, the `answers`, for the place after the last token."""

    def __init__(self, model: NativeModel, sizes: CallSizes, answers: Sequence[int]) -> None:
        super().__init__(model, sizes, "none")
        self._answers = list(answers)

    def _computed(self, part: Sequence[TokenSequence]) -> list[FloatArray]:
        if not isinstance(self._context, NativeContext):
            self._context = NativeContext(
                self.model,
                cells=self.sizes.n_batch,
                slots=SLOTS,
                n_batch=self.sizes.n_batch,
                max_outputs=SLOTS,
                n_threads=self.sizes.n_threads,
            )
        context = self._context
        context.clear()
        places = self._fill(part, outputs=1)
        if not context.decode(self._batch):
            raise RuntimeError("the pool has no room for one batch")
        return [context.logits(place)[self._answers] for place in places]


def _parts(sequences: Sequence[TokenSequence], n_batch: int) -> Iterator[list[TokenSequence]]:
    """Neighbours that fit into one call."""
    part: list[TokenSequence] = []
    room = n_batch
    for sequence in sequences:
        if part and (len(sequence) > room or len(part) == SLOTS):
            yield part
            part, room = [], n_batch
        part.append(sequence)
        room -= len(sequence)
    if part:
        yield part
