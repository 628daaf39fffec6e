"""One step after the other: plan, decode, sample, detokenise. Single-threaded, no queues."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from models.continuous_batching.batch import Batch
from models.continuous_batching.kv_pool import KvPool
from models.continuous_batching.pacing import PaceLimits, Pacer
from models.continuous_batching.prefix_cache import PrefixCache
from models.continuous_batching.runner import Sampler, TokenRunner
from models.continuous_batching.scheduler import Scheduler, Step
from models.continuous_batching.sequence import Sequence
from models.errors import ModelError
from models.logprobs import token_logprob
from models.types import FinishReason, TextDelta, TokenLogprob, Usage

Event = tuple[str, TextDelta | ModelError]

CACHED_SEQUENCES = 32
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot for metrics. `kv_cells_used` counts shared cells once; `preemptions` counts, since
    the start, how often a sequence was parked because the KV pool was full."""

    busy_sequences: int
    queued_requests: int
    kv_cells_used: int
    kv_cells: int
    cached_sequences: int
    preemptions: int


class DecodeLoop:
    """Owns a runner; create it, step it and close it on one thread."""

    def __init__(
        self, runner: TokenRunner, *, max_sequences: int, limits: PaceLimits | None = None
    ) -> None:
        self.runner = runner
        self._vocabulary = runner.vocabulary
        self.pool = KvPool(runner, cells=runner.cells, slots=runner.slots)
        self.cache = PrefixCache(
            self.pool, max_used_cells=runner.cells // 2, enabled=runner.shares_prefixes
        )
        self._pacer = Pacer(runner.n_batch, limits)
        self.scheduler = Scheduler(
            self.pool,
            self.cache,
            self._pacer,
            max_sequences=max_sequences,
            n_batch=runner.n_batch,
        )
        self._batch = Batch(runner.n_batch)

    @property
    def stats(self) -> EngineStats:
        """May be read from any thread."""
        return EngineStats(
            busy_sequences=self.scheduler.running,
            queued_requests=self.scheduler.waiting,
            kv_cells_used=self.pool.used,
            kv_cells=self.pool.cells,
            cached_sequences=len(self.cache),
            preemptions=self.scheduler.preemptions,
        )

    @property
    def busy(self) -> bool:
        return bool(self.scheduler.running or self.scheduler.waiting)

    def submit(self, sequence: Sequence) -> None:
        sequence.sampler = self.runner.sampler(sequence.sampling, sequence.known.tolist())
        self.scheduler.submit(sequence)

    def cancel(self, request_id: str) -> None:
        sequence = self.scheduler.cancel(request_id)
        if sequence is not None:
            _free_sampler(sequence)

    def step(self) -> list[Event]:
        """Decode once; returns what that added to each request, in no particular order."""
        started = time.perf_counter()
        step, outputs = self._decode()
        events: list[Event] = []
        for sequence, index in outputs:
            event = self._advance(sequence, index)
            if event is not None:
                events.append((sequence.request_id, event))
        if step.tokens:
            decoding = len(step.decoding)
            elapsed = time.perf_counter() - started
            self._pacer.observe(decoding, step.tokens - decoding, elapsed)
        return events

    def close(self) -> None:
        for sequence in self.scheduler.sequences():
            _free_sampler(sequence)
        self.runner.close()

    # --- decoding -----------------------------------------------------------------------------

    def _decode(self) -> tuple[Step, list[tuple[Sequence, int]]]:
        """The step that was decoded, and which batch entries have logits of which sequence."""
        while (step := self.scheduler.plan()).tokens:
            outputs = self._fill(step)
            if self.runner.decode(self._batch):
                self.scheduler.commit(step)
                return step, outputs
            if not self.scheduler.relieve():
                raise RuntimeError("the KV pool has no room for a single sequence")
        return step, []

    def _fill(self, step: Step) -> list[tuple[Sequence, int]]:
        batch, decoding = self._batch, step.decoding
        batch.clear()
        batch.append_singles(
            [s.slot for s in decoding],
            [s.evaluated for s in decoding],
            [s.next_token for s in decoding],
        )
        outputs = [(sequence, index) for index, sequence in enumerate(decoding)]
        for chunk in step.prefill:
            sequence, start = chunk.sequence, chunk.sequence.evaluated
            complete = chunk.count == sequence.remaining
            tokens = sequence.tokens[start : start + chunk.count]
            index = batch.append(sequence.slot, start, tokens, output=complete)
            if complete:
                outputs.append((sequence, index))
        return outputs

    # --- one request --------------------------------------------------------------------------

    def _advance(self, sequence: Sequence, index: int) -> TextDelta | ModelError | None:
        """Add one token to a sequence; what goes wrong here ends this request alone."""
        try:
            return self._add_token(sequence, index)
        except Exception:
            _log.exception("a request failed during sampling")
            self._retire(sequence)
            return ModelError("the generation failed")

    def _add_token(self, sequence: Sequence, index: int) -> TextDelta | None:
        sampler = sequence.sampler
        if sampler is None:
            raise RuntimeError("the sequence has no sampler")
        token = sampler.choose(index)
        logprob = self._logprob(sequence, sampler, token, index)
        sequence.append(token)
        if token in self._vocabulary.end_tokens:
            return self._finish(sequence, "stop")
        emission = sequence.text.push(self._vocabulary.pieces[token], logprob)
        if sequence.text.stopped:
            return self._finish(sequence, "stop", emission.text, emission.logprobs)
        if sequence.generated >= sequence.max_new:
            return self._finish(sequence, "length", emission.text, emission.logprobs)
        if emission.text or emission.logprobs:
            return TextDelta(emission.text, emission.logprobs)
        return None

    def _logprob(
        self, sequence: Sequence, sampler: Sampler, token: int, index: int
    ) -> TokenLogprob | None:
        wanted = sequence.sampling.logprobs
        if wanted is None:
            return None
        return token_logprob(sampler.logits(index), token, wanted, self._vocabulary.pieces)

    def _finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        text: str = "",
        logprobs: Iterable[TokenLogprob] = (),
    ) -> TextDelta:
        rest = sequence.text.flush()
        self._retire(sequence)
        usage = Usage(sequence.prompt_tokens, sequence.generated, sequence.cached_tokens or 0)
        return TextDelta(text + rest.text, (*logprobs, *rest.logprobs), reason, usage)

    def _retire(self, sequence: Sequence) -> None:
        self.scheduler.finish(sequence)
        _free_sampler(sequence)


def _free_sampler(sequence: Sequence) -> None:
    if sequence.sampler is not None:
        sequence.sampler.close()
        sequence.sampler = None
