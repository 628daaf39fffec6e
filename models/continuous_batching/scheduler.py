"""Who runs in the next step. Pure bookkeeping: no native call but through the KV pool."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from models.continuous_batching.kv_pool import KvPool
from models.continuous_batching.pacing import Pacer
from models.continuous_batching.prefix_cache import NO_MATCH, Match, PrefixCache, common_prefix
from models.continuous_batching.sequence import NO_SLOT, Sequence

HEADROOM = 32
"""Cells per sequence kept free at admission: a few dozen steps before anyone must be parked."""

KEPT_WAITS = 1000
"""Of the seconds that requests have waited: more than are admitted between two looks at them."""

WORTH_WAITING = 32
"""Tokens that make it worth waiting for a running prefill instead of repeating it."""
MAX_PASSED_OVER = 8
"""Requests that wait for such a prefill while those behind them are let in; looking at one costs a
comparison with all that is resident."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` prompt tokens of a sequence in prefill."""

    sequence: Sequence
    count: int


@dataclass(frozen=True, slots=True)
class Step:
    """One token of each decoding sequence, then prefill chunks."""

    decoding: list[Sequence] = field(default_factory=list)
    prefill: list[Chunk] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return len(self.decoding) + sum(chunk.count for chunk in self.prefill)


class Scheduler:
    """Admits callers in turn, and each one's requests first come, first served, by KV budget.

    A request is admitted when its prompt and a small headroom fit, whatever its `max_tokens`.
    When the pool runs full, cached sequences go first; then the youngest running sequence is
    parked: it loses its cells, waits at the head of the queue and is evaluated again later.
    """

    def __init__(
        self,
        pool: KvPool,
        cache: PrefixCache,
        pacer: Pacer,
        *,
        max_sequences: int,
        n_batch: int,
        max_outputs: int,
    ) -> None:
        self._pool = pool
        self._cache = cache
        self._pacer = pacer
        self._max_sequences = max_sequences
        self._n_batch = n_batch
        self._max_outputs = max_outputs
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._arrivals = 0
        self.preemptions = 0
        self.waits: deque[float] = deque(maxlen=KEPT_WAITS)
        self._shortest_first = False

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, sequence: Sequence) -> None:
        self._arrivals += 1
        sequence.order = self._arrivals
        sequence.since = time.monotonic()
        self._waiting.append(sequence)

    def plan(self) -> Step:
        """The next step; empty only when nothing runs and nothing waits."""
        self._admit()
        while self._running:
            decoding = [s for s in self._running if s.remaining == 1]
            if self._make_room(len(decoding)):
                step = Step(decoding, self._prefill(len(decoding)))
                if step.tokens:
                    return step
            if not self.park_youngest():
                raise RuntimeError("one sequence alone does not fit the KV pool")
        return Step()

    def commit(self, step: Step) -> None:
        """Account for a step that was decoded."""
        for sequence in step.decoding:
            self._pool.grow(sequence.slot, 1)
            sequence.evaluated += 1
        for chunk in step.prefill:
            self._pool.grow(chunk.sequence.slot, chunk.count)
            chunk.sequence.evaluated += chunk.count

    def relieve(self) -> bool:
        """Give cells back after a decode found no room; False when nothing can be given."""
        return self._cache.evict() or self.park_youngest()

    def park_youngest(self) -> bool:
        """Send the youngest running sequence back to the queue; False when it runs alone."""
        if len(self._running) < 2:
            return False
        youngest = max(self._running, key=lambda sequence: sequence.order)
        self._running.remove(youngest)
        self._pool.release(youngest.slot)
        youngest.slot, youngest.evaluated = NO_SLOT, 0
        self._waiting.appendleft(youngest)
        self.preemptions += 1
        return True

    def finish(self, sequence: Sequence) -> None:
        """Take a running sequence out; its evaluated tokens stay as a cached prefix."""
        self._running.remove(sequence)
        self._cache.keep(sequence.slot, sequence.tokens[: sequence.evaluated])
        sequence.slot = NO_SLOT

    def cancel(self, request_id: str) -> Sequence | None:
        """Forget a request wherever it is; returns it, or None when it is unknown."""
        for sequence in self._waiting:
            if sequence.request_id == request_id:
                self._waiting.remove(sequence)
                return sequence
        for sequence in self._running:
            if sequence.request_id == request_id:
                self.finish(sequence)
                return sequence
        return None

    def sequences(self) -> Iterable[Sequence]:
        """Everything that runs or waits."""
        return (*self._running, *self._waiting)

    # --- admission ----------------------------------------------------------------------------

    def _admit(self) -> None:
        passed_over: list[Sequence] = []
        while len(self._running) < self._max_sequences:
            candidate = self._next(passed_over)
            if candidate is None:
                return
            match = self._best_prefix(candidate)
            if match is None and len(passed_over) < MAX_PASSED_OVER:
                passed_over.append(candidate)
                continue
            if match is None or not self._reserve(candidate, match):
                return
            self._waiting.remove(candidate)
            self._start(candidate, match)

    def _next(self, passed_over: list[Sequence]) -> Sequence | None:
        """One that was parked; else of the caller with the fewest running, the one that waits
        longest."""
        waiting = [s for s in self._waiting if s not in passed_over]
        if not waiting:
            return None
        first = waiting[0]
        if first.generated or not first.caller:
            return first
        running = Counter(sequence.caller for sequence in self._running)
        return min(waiting, key=lambda s: (running[s.caller], s.order))

    def _best_prefix(self, candidate: Sequence) -> Match | None:
        """Where the candidate's prompt is already evaluated; None: about to be, so wait for it."""
        if not self._cache.enabled or candidate.scores_prompt:
            return NO_MATCH
        reusable = candidate.known[:-1]  # the last token must be evaluated for its logits
        best = self._cache.longest(reusable)
        promised = 0
        for sequence in self._running:
            length = common_prefix(sequence.known, reusable)
            promised = max(promised, length)
            available = min(length, sequence.evaluated)
            if available > best.length:
                best = Match(sequence.slot, available)
        return None if promised >= best.length + WORTH_WAITING else best

    def _reserve(self, candidate: Sequence, match: Match) -> bool:
        """Make sure of a slot and of enough free cells; False when the candidate must wait."""
        need = _growth(candidate) - match.length + sum(map(_growth, self._running))
        if not self._running:
            need = candidate.remaining - match.length
        while self._pool.free < need or not self._pool.has_free_slot:
            if not self._cache.evict(spare=match.slot):
                return self._pool.has_free_slot and not self._running
        return True

    def _start(self, sequence: Sequence, match: Match) -> None:
        sequence.slot = self._pool.take_slot()
        if match.length:
            self._pool.share(match.slot, sequence.slot, match.length)
            self._cache.touch(match.slot)
            sequence.evaluated = match.length
        if sequence.cached_tokens is None:
            sequence.cached_tokens = match.length
            self.waits.append(time.monotonic() - sequence.since)
        self._running.append(sequence)

    # --- composition of a step ----------------------------------------------------------------

    def _make_room(self, cells: int) -> bool:
        while self._pool.free < cells:
            if not self._cache.evict():
                return False
        return True

    def _prefill(self, decoding: int) -> list[Chunk]:
        prompts = [s for s in self._running if s.remaining > 1]
        budget = min(self._pacer.budget(decoding), self._n_batch - decoding) if prompts else 0
        chunks: list[Chunk] = []
        taken, rows = decoding, self._max_outputs - len(self._running)
        for sequence in self._in_turn(prompts):
            scored = sequence.scores_prompt
            wanted = min(sequence.remaining, budget, rows if scored else budget)
            self._make_room(taken + wanted)
            count = min(wanted, self._pool.free - taken)
            if count > 0:
                chunks.append(Chunk(sequence, count))
                budget -= count
                taken += count
                rows -= count if scored else 0
        return chunks

    def _in_turn(self, prompts: list[Sequence]) -> list[Sequence]:
        """The oldest first in every other step, the shortest in those between: a question does not
        wait for a book, and the book gets read."""
        self._shortest_first = not self._shortest_first
        if self._shortest_first:
            return sorted(prompts, key=lambda sequence: (sequence.remaining, sequence.order))
        return sorted(prompts, key=lambda sequence: sequence.order)


def _growth(sequence: Sequence) -> int:
    """Cells a sequence will take soon: the rest of its prompt and a little of its completion."""
    return sequence.remaining + min(HEADROOM, sequence.max_new - sequence.generated)
