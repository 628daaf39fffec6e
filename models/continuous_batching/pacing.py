"""How many prompt tokens a step may take along, so that running streams keep their pace."""

from __future__ import annotations

from dataclasses import dataclass

MAX_STALL = 2.2
_NEWS = 0.3
"""Weight of the newest observation: steps get dearer as sequences grow."""
_FIRST_GUESS = 0.01
"""Seconds of a plain decode step before one was seen."""
_FIRST_CHUNK = 2
_SHRINK, _GROW = 0.7, 1.5
"""Bounds of one correction: a single slow step (a busy machine) is believed in part only."""
_STALE = 32
"""Steps with prefill after which a plain one is measured again."""


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """`max_stall`: how many plain decode steps a step with prefill may last; less than
    the threefold that is wanted of the slowest steps. `solo_seconds`: how long a step may last when
    nobody decodes, so that arrivals and cancellations are not kept waiting. Chunks stay between
    `min_chunk` and `max_chunk` tokens while others decode."""

    max_stall: float = MAX_STALL
    solo_seconds: float = 0.5
    min_chunk: int = 1
    max_chunk: int = 128


class Pacer:
    """Learns how long plain decode steps last, and how many prompt tokens make them as long as they
    may be, for each number of decoding sequences.

    What a token adds to a step depends on how many come along: on a CPU the second row of a batch
    may cost as much as the next ten. No cost per token is assumed, therefore: a step that was
    shorter than allowed makes the next chunk larger in proportion, one that was longer makes it
    smaller. On a GPU chunks reach `max_chunk`.
    """

    def __init__(self, n_batch: int, limits: PaceLimits | None = None) -> None:
        self._n_batch = n_batch
        self._limits = limits or PaceLimits()
        self._plain: dict[int, float] = {}
        self._since_plain: dict[int, int] = {}
        self._chunk: dict[int, float] = {}
        self._each_alone: float | None = None

    def observe(self, decoding: int, prefill: int, seconds: float) -> None:
        """Learn from a step with `decoding` decode tokens and `prefill` prompt tokens."""
        if not prefill:
            self._plain[decoding] = _blend(self._plain.get(decoding), seconds)
            self._since_plain[decoding] = 0
        elif not decoding:
            self._each_alone = _blend(self._each_alone, seconds / prefill)
        elif decoding in self._plain:
            self._since_plain[decoding] += 1
            allowed = self._limits.max_stall * self._plain[decoding]
            self._correct(decoding, prefill, allowed / seconds)

    def budget(self, decoding: int) -> int:
        """Prompt tokens that may join a step in which `decoding` sequences decode.

        0 when no plain step of so many sequences was seen for long; the next one will be.
        """
        limits = self._limits
        if decoding == 0:
            each = self._each_alone or self._plain.get(1, _FIRST_GUESS)
            return _clamp(limits.solo_seconds / each, 32, self._n_batch)
        if self._since_plain.get(decoding, _STALE) >= _STALE:
            return 0
        return self._whole(self._chunk_of(decoding))

    def _chunk_of(self, decoding: int) -> float:
        """The learned size, else that of fewer sequences, whose steps are shorter."""
        known = [count for count in self._chunk if count <= decoding]
        return self._chunk[max(known)] if known else _FIRST_CHUNK

    def _whole(self, chunk: float) -> int:
        return _clamp(chunk, self._limits.min_chunk, self._limits.max_chunk)

    def _correct(self, decoding: int, prefill: int, room: float) -> None:
        """`room` is the allowed time of the step by its time. The rest of a prompt, smaller than a
        chunk, can show that chunks are too large, but not that they are too small."""
        chunk = self._chunk_of(decoding)
        if room < 1:
            self._chunk[decoding] = max(min(chunk, prefill) * max(room, _SHRINK), 1.0)
        elif prefill >= self._whole(chunk):
            larger = max(chunk * min(room, _GROW), chunk + 3 * min(room - 1, 1.0))
            self._chunk[decoding] = min(larger, self._limits.max_chunk)


def _blend(old: float | None, new: float) -> float:
    """A moving average, which believes a single slow step (a busy machine) in part only."""
    if old is None:
        return new
    return old + _NEWS * (min(new, 3 * old) - old)


def _clamp(value: float, low: int, high: int) -> int:
    return int(min(max(value, low), high))
