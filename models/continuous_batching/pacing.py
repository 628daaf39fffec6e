"""How many prompt tokens a step may take along, so that running streams keep their pace."""

from __future__ import annotations

from dataclasses import dataclass

_DECAY = 0.95


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """`max_stall`: how many plain decode steps a step with prefill may last. `solo_seconds`: how
    long a step may last when nobody decodes, so that arrivals and cancellations are not kept
    waiting. Chunks stay between `min_chunk` and `max_chunk` tokens while others decode."""

    max_stall: float = 3.0
    solo_seconds: float = 0.5
    min_chunk: int = 4
    max_chunk: int = 128


class Pacer:
    """Learns the cost of a step, seconds = fixed + each * tokens, from the steps themselves.

    An exponentially weighted least-squares line; single slow steps (a busy machine) are clipped.
    On a CPU a token costs nearly the same in prefill and decode and chunks come out small; on a
    GPU prefill is almost free and they reach `max_chunk`.
    """

    def __init__(self, n_batch: int, limits: PaceLimits | None = None) -> None:
        self._n_batch = n_batch
        self._limits = limits or PaceLimits()
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from one step of `tokens` tokens."""
        fixed, each = self._line()
        if self._weight > 8:
            seconds = min(seconds, 3 * (fixed + each * tokens))
        self._weight = self._weight * _DECAY + 1
        self._x = self._x * _DECAY + tokens
        self._y = self._y * _DECAY + seconds
        self._xx = self._xx * _DECAY + tokens * tokens
        self._xy = self._xy * _DECAY + tokens * seconds

    def budget(self, decoding: int) -> int:
        """Prompt tokens that may join a step in which `decoding` sequences decode."""
        fixed, each = self._line()
        limits = self._limits
        if decoding == 0:
            return _clamp(limits.solo_seconds / each, 32, self._n_batch)
        spare = (limits.max_stall - 1) * (fixed / each + decoding)
        return _clamp(spare, limits.min_chunk, limits.max_chunk)

    def _line(self) -> tuple[float, float]:
        """(fixed, each) in seconds; a cautious guess until steps of different sizes were seen."""
        spread = self._weight * self._xx - self._x * self._x
        if spread <= 1e-6 * self._xx:
            return (0.008, 0.001) if not self._weight else self._guess()
        each = max((self._weight * self._xy - self._x * self._y) / spread, 1e-7)
        fixed = max((self._y - each * self._x) / self._weight, 0.0)
        return fixed, each

    def _guess(self) -> tuple[float, float]:
        """One size seen so far: split its time between the fixed part and the tokens."""
        mean_tokens, mean_seconds = self._x / self._weight, self._y / self._weight
        each = max(mean_seconds / (mean_tokens + 4), 1e-7)
        return 4 * each, each


def _clamp(value: float, low: int, high: int) -> int:
    return int(min(max(value, low), high))
