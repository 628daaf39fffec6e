"""One step after the other: plan, decode, sample, detokenise. Single-threaded, no queues."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from models.continuous_batching.batch import Batch
from models.continuous_batching.kv_pool import KvPool
from models.continuous_batching.logprobs import token_logprob
from models.continuous_batching.pacing import PaceLimits, Pacer
from models.continuous_batching.prefix_cache import PrefixCache
from models.continuous_batching.runner import TokenRunner
from models.continuous_batching.scheduler import Scheduler, Step
from models.continuous_batching.sequence import NO_SLOT, Sequence
from models.errors import ModelError, OutOfMemoryError
from models.types.common import Usage
from models.types.generation import FinishReason, TextDelta, TokenLogprob

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
            self.pool, max_used_cells=runner.resident_cells, enabled=runner.shares_prefixes
        )
        self._pacer = Pacer(runner.n_batch, limits)
        self.scheduler = Scheduler(
            self.pool,
            self.cache,
            self._pacer,
            max_sequences=max_sequences,
            n_batch=runner.n_batch,
            max_outputs=runner.max_outputs,
        )
        self._batch = Batch(runner.n_batch)
        self._scored: list[tuple[Sequence, int, int, int]] = []
        self._refused: list[Event] = []

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
        return bool(self.scheduler.running or self.scheduler.waiting or self._refused)

    def submit(self, sequence: Sequence) -> None:
        """What goes wrong here is the request's event of the next step."""
        params = sequence.sampling
        if sequence.constraint is not None:
            # the grammar knows where the text may end; both could forbid every token
            params = replace(params, min_tokens=0, ignore_eos=False)
        try:
            sequence.sampler = self.runner.sampler(params, sequence.known.tolist())
        except Exception as error:
            self._refused.append((sequence.request_id, _told(error)))
        else:
            self.scheduler.submit(sequence)

    def cancel(self, request_id: str) -> None:
        sequence = self.scheduler.cancel(request_id)
        if sequence is not None:
            _free_sampler(sequence)

    def step(self) -> list[Event]:
        """Decode once; returns what that added to each request, in no particular order."""
        started = time.perf_counter()
        step, outputs = self._decode()
        events, self._refused = self._refused, []
        for sequence, first, start, count in self._scored if step.tokens else ():
            score = partial(self._score_prompt, sequence, first, start, count)
            events += self._guarded(sequence, score)
        for sequence, index in outputs:
            if sequence.slot != NO_SLOT:  # its scores may have failed
                events += self._guarded(sequence, partial(self._add_token, sequence, index))
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
        self._scored.clear()
        for chunk in step.prefill:
            sequence, count = chunk.sequence, chunk.count
            start = sequence.evaluated
            complete = count == sequence.remaining
            scored = sequence.scores_prompt
            last = batch.append(
                sequence.slot,
                start,
                sequence.tokens[start : start + count],
                outputs=count if scored else complete,
            )
            if scored:
                self._scored.append((sequence, last - count + 1, start, count))
            if complete:
                outputs.append((sequence, last))
        return outputs

    # --- one request --------------------------------------------------------------------------

    def _guarded(self, sequence: Sequence, work: Callable[[], TextDelta | None]) -> list[Event]:
        """The event that the work makes, if any; what goes wrong in it ends this request alone."""
        event: TextDelta | ModelError | None
        try:
            event = work()
        except Exception as error:
            event = _told(error)
            self._retire(sequence)
        return [] if event is None else [(sequence.request_id, event)]

    def _add_token(self, sequence: Sequence, index: int) -> TextDelta | None:
        if not sequence.max_new:
            return self._finish(sequence, None, "length")
        token, logprob = self._choose(sequence, index)
        sequence.append(token)
        if token in self._vocabulary.end_tokens:
            return self._finish(sequence, None, "stop")
        completion, constraint = sequence.completion, sequence.constraint
        delta = completion.push(token, logprob)
        if completion.stopped or (constraint is not None and constraint.finished):
            return self._finish(sequence, delta, "stop")
        if sequence.generated >= sequence.max_new:
            return self._finish(sequence, delta, "length")
        return delta

    def _choose(self, sequence: Sequence, index: int) -> tuple[int, TokenLogprob | None]:
        sampler, constraint = sequence.sampler, sequence.constraint
        if sampler is None:
            raise RuntimeError("the sequence has no sampler")
        wanted = sequence.sampling.logprobs
        row = None if wanted is None else sampler.logits(index)
        if row is not None and constraint is not None:
            row = row.copy()  # the constraint may write into it
        token = sequence.completion.next_forced()
        if token is None:
            token = sampler.choose(index, constraint)
        else:
            sampler.accept(token)
        if constraint is not None:
            constraint.accept(token)
        if row is None or wanted is None:
            return token, None
        return token, token_logprob(row, token, wanted, self._vocabulary.pieces)

    def _score_prompt(self, sequence: Sequence, first: int, start: int, count: int) -> None:
        """Log probabilities of the prompt tokens that follow `count` evaluated ones."""
        sampler, scores = sequence.sampler, sequence.prompt_logprobs
        if sampler is None or scores is None:
            raise RuntimeError("the sequence has no sampler or needs no scores")
        pieces, wanted = self._vocabulary.pieces, sequence.sampling.logprobs or 0
        for offset in range(count):
            position = start + offset + 1  # of the token that the row predicts
            if position == len(scores) and position < sequence.prompt_tokens:
                row = sampler.logits(first + offset)
                token = int(sequence.tokens[position])
                scores.append(token_logprob(row, token, wanted, pieces))

    def _finish(
        self, sequence: Sequence, last: TextDelta | None, reason: FinishReason
    ) -> TextDelta:
        usage = Usage(sequence.prompt_tokens, sequence.generated, sequence.cached_tokens or 0)
        delta = sequence.completion.finish(last, reason, usage)
        self._retire(sequence)
        return delta

    def _retire(self, sequence: Sequence) -> None:
        self.scheduler.finish(sequence)
        _free_sampler(sequence)


def _told(error: Exception) -> ModelError:
    """What the client learns of it; called where it was caught."""
    if isinstance(error, ModelError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemoryError("There is not enough memory for this request now.")
    _log.exception("a request failed during sampling")
    return ModelError("the generation failed")


def _free_sampler(sequence: Sequence) -> None:
    if sequence.sampler is not None:
        sequence.sampler.close()
        sequence.sampler = None
