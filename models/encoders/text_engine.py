"""The engine under every encoder: requests to token sequences to shared batches to results.

Tokenisation runs on two threads of its own, in parallel with the compute thread of the batcher:
one for bulk jobs, so that a single query waits for none of them. What differs between tasks is a
`Codec`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from models.batching import BatchLimits, BatchListener, DynamicBatcher
from models.encoders.tokenization import TokenSequence
from models.errors import EngineDeadError, ModelError
from models.types.common import FloatArray

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")
CodecRequestT = TypeVar("CodecRequestT", contravariant=True)
CodecResultT = TypeVar("CodecResultT", covariant=True)

LOGGER = logging.getLogger(__name__)
BULK_TOKENS = 16_384
MAX_BATCH_ITEMS = 512
DEFAULT_BATCH_TOKENS = 4096
DEFAULT_BATCH_SECONDS = 0.15
"""About 1,000 tokens of a small encoder on one CPU core: as fast as larger batches, but fairer."""
DEFAULT_QUEUED_TOKENS = 1 << 20
CHARACTERS_PER_TOKEN = 4


class Codec(Protocol[CodecRequestT, CodecResultT]):
    """What differs between tasks. `encode` and `decode` raise nothing but ModelErrors."""

    def estimate(self, request: CodecRequestT) -> int:
        """Tokens, roughly and at once: for admission before anything is tokenised."""

    def encode(self, requests: Sequence[CodecRequestT]) -> list[list[TokenSequence] | ModelError]:
        """The sequences of each request, or what is wrong with it."""

    def decode(
        self, request: CodecRequestT, sequences: list[TokenSequence], rows: list[FloatArray]
    ) -> CodecResultT:
        """One request's result from the model's rows, one per sequence."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Bounds of one batch and of the queue, in tokens; `on_batch` hears of every batch.

    `batch_seconds` is what a batch should take, see `BatchLimits`.
    """

    max_batch_tokens: int = DEFAULT_BATCH_TOKENS
    max_queued_tokens: int = DEFAULT_QUEUED_TOKENS
    on_batch: BatchListener | None = None
    batch_seconds: float | None = DEFAULT_BATCH_SECONDS

    @property
    def limits(self) -> BatchLimits:
        return BatchLimits(
            self.max_batch_tokens, MAX_BATCH_ITEMS, self.max_queued_tokens, self.batch_seconds
        )


class TextEngine(Generic[RequestT, ResultT]):
    """A `BatchModel` out of a codec and a function from token sequences to rows."""

    def __init__(
        self,
        codec: Codec[RequestT, ResultT],
        compute: Callable[[list[TokenSequence]], Sequence[FloatArray]],
        *,
        max_tokens: int,
        memory_bytes: int,
        options: EngineOptions,
    ) -> None:
        self._codec = codec
        self._max_tokens = max_tokens
        self._memory_bytes = memory_bytes
        self._batcher: DynamicBatcher[TokenSequence, FloatArray] = DynamicBatcher(
            compute, len, options.limits, options.on_batch, name="encoder"
        )
        self._tokenizer = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._bulk_tokenizer = ThreadPoolExecutor(1, thread_name_prefix="bulk-tokenizer")
        self._lock = threading.Lock()
        self._encoding_cost = 0

    @property
    def max_tokens(self) -> int:
        """Tokens of one input, special tokens included."""
        return self._max_tokens

    @property
    def memory_bytes(self) -> int:
        """Size of the weights."""
        return self._memory_bytes

    @property
    def alive(self) -> bool:
        """False once the compute thread has ended, for whatever reason."""
        return self._batcher.alive

    @property
    def queued_tokens(self) -> int:
        return self._encoding_cost + self._batcher.queued_cost

    def submit(self, requests: Sequence[RequestT]) -> Future[list[ResultT | ModelError]]:
        """See `BatchModel.submit`."""
        job: _Job[RequestT, ResultT] = _Job(tuple(requests))
        cost = sum(self._codec.estimate(request) for request in job.requests)
        tokenizer = self._tokenizer if cost <= BULK_TOKENS else self._bulk_tokenizer
        with self._lock:
            self._batcher.check_room(cost, elsewhere=self._encoding_cost)
            try:
                tokenizer.submit(self._encode, job, cost)
            except RuntimeError as error:  # closed since the check
                raise EngineDeadError("The engine has been closed.") from error
            self._encoding_cost += cost
        return job.future

    def close(self) -> None:
        """End the threads; what waits gets an EngineDeadError. May be called twice."""
        self._batcher.close()
        self._tokenizer.shutdown()
        self._bulk_tokenizer.shutdown()

    def _encode(self, job: _Job[RequestT, ResultT], cost: int) -> None:
        try:
            if not job.future.cancelled():
                self._queue(job)
        except ModelError as error:
            job.fail(error)
        except BaseException as error:  # the outermost frame of a thread's task; tokenizers panics
            LOGGER.error("a submission could not be encoded", exc_info=error)
            job.fail(ModelError("The input could not be tokenised."))
        finally:
            with self._lock:
                self._encoding_cost -= cost

    def _queue(self, job: _Job[RequestT, ResultT]) -> None:
        if not self._batcher.alive:
            raise EngineDeadError("The engine has stopped.")
        job.encoded = self._codec.encode(job.requests)
        sequences = [s for entry in job.encoded if isinstance(entry, list) for s in entry]
        rows = self._batcher.submit(sequences)
        job.future.add_done_callback(lambda done: done.cancelled() and rows.cancel())
        rows.add_done_callback(lambda done: self._decode(job, done))

    def _decode(
        self, job: _Job[RequestT, ResultT], done: Future[list[FloatArray | ModelError]]
    ) -> None:
        if done.cancelled():
            job.future.cancel()
            return
        error = done.exception()
        if error is not None:
            job.fail(error)
            return
        try:
            job.finish(self._results(job, done.result()))
        except Exception:  # the outermost frame here: a callback's exception would be lost
            LOGGER.exception("a submission could not be decoded")
            job.fail(ModelError("The model's output could not be read."))

    def _results(
        self, job: _Job[RequestT, ResultT], outputs: Sequence[FloatArray | ModelError]
    ) -> list[ResultT | ModelError]:
        rows = iter(outputs)
        return [
            encoded
            if isinstance(encoded, ModelError)
            else self._result(request, encoded, [next(rows) for _ in encoded])
            for request, encoded in zip(job.requests, job.encoded, strict=True)
        ]

    def _result(
        self, request: RequestT, encoded: list[TokenSequence], rows: list[FloatArray | ModelError]
    ) -> ResultT | ModelError:
        failed = next((row for row in rows if isinstance(row, ModelError)), None)
        if failed is not None:
            return failed
        try:
            return self._codec.decode(request, encoded, rows)  # type: ignore[arg-type]  # none failed
        except ModelError as error:
            return error


class _Job(Generic[RequestT, ResultT]):
    """One `submit` call on its way."""

    def __init__(self, requests: tuple[RequestT, ...]) -> None:
        self.requests = requests
        self.encoded: list[list[TokenSequence] | ModelError] = []
        self.future: Future[list[ResultT | ModelError]] = Future()

    def finish(self, results: list[ResultT | ModelError]) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(results)

    def fail(self, error: BaseException) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


def estimate_tokens(text: str) -> int:
    """A rough count before tokenisation, special tokens included."""
    return len(text) // CHARACTERS_PER_TOKEN + 2
