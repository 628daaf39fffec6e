"""How many prompt tokens a step may take along, so that running streams keep their pace."""

from __future__ import annotations

from dataclasses import dataclass

MAX_STALL = 2.7
_NEWS = 0.3
"""Weight of the newest observation: a prompt's tokens get dearer as it grows."""
_FIRST_GUESS = 0.01
"""Seconds of a plain decode step before one was seen."""
_SHORTEST = 1e-7


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """`max_stall`: how many plain decode steps a step with prefill may last; a little less than
    the threefold that is wanted of the slowest steps. `solo_seconds`: how long a step may last when
    nobody decodes, so that arrivals and cancellations are not kept waiting. Chunks stay between
    `min_chunk` and `max_chunk` tokens while others decode."""

    max_stall: float = MAX_STALL
    solo_seconds: float = 0.5
    min_chunk: int = 1
    max_chunk: int = 128


class Pacer:
    """Learns from every step what plain decode steps cost, and what prompt tokens add to them.

    What a token adds depends on how many come along: on a CPU the second row of a batch may cost
    a third of a step and the twentieth a tenth. So the cost of a token is that at the present size
    of chunks, for each number of decoding sequences. Where larger chunks are cheaper per token,
    every step allows a larger one than the step before, until the step is as long as it may be.
    """

    def __init__(self, n_batch: int, limits: PaceLimits | None = None) -> None:
        self._n_batch = n_batch
        self._limits = limits or PaceLimits()
        self._plain: dict[int, float] = {}
        self._each: dict[int, float] = {}
        self._each_alone: float | None = None

    def observe(self, decoding: int, prefill: int, seconds: float) -> None:
        """Learn from a step with `decoding` decode tokens and `prefill` prompt tokens."""
        if not prefill:
            self._plain[decoding] = _blend(self._plain.get(decoding), seconds)
        elif not decoding:
            self._each_alone = _blend(self._each_alone, seconds / prefill)
        elif 2 * prefill >= self.budget(decoding) > 0:  # the rest of a prompt says little
            added = max(seconds - self._plain[decoding], _SHORTEST)
            self._each[decoding] = _blend(self._each.get(decoding), added / prefill)

    def budget(self, decoding: int) -> int:
        """Prompt tokens that may join a step in which `decoding` sequences decode.

        0 while no plain step of so many sequences was seen; the next one will be.
        """
        limits = self._limits
        if decoding == 0:
            each = self._each_alone or self._plain.get(1, _FIRST_GUESS)
            return _clamp(limits.solo_seconds / each, 32, self._n_batch)
        plain = self._plain.get(decoding)
        if plain is None:
            return 0
        each = self._each.get(decoding, plain / decoding)
        return _clamp((limits.max_stall - 1) * plain / each, limits.min_chunk, limits.max_chunk)


def _blend(old: float | None, new: float) -> float:
    """A moving average, which believes a single slow step (a busy machine) in part only."""
    if old is None:
        return new
    return old + _NEWS * (min(new, 3 * old) - old)


def _clamp(value: float, low: int, high: int) -> int:
    return int(min(max(value, low), high))
