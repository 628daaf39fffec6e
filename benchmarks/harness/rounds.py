"""Sides measured in turns, A B A B, and how much else the machine did meanwhile."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

Measure = Callable[[], Mapping[str, float]]
"""One measurement of one side: metric -> value. A metric has the same name on every side."""

DISTURBED = 0.25
"""Cores that processes of others took in a round from which on it counts as disturbed."""


@dataclass(slots=True)
class Rounds:
    """What was measured of each side, round by round; `disturbed` counts rounds with other load."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    disturbed: int = 0
    count: int = 0

    def add(self, side: str, metrics: Mapping[str, float]) -> None:
        for metric, value in metrics.items():
            self.values.setdefault(side, {}).setdefault(metric, []).append(value)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One round; what is added in it was measured beside the same other load."""
        with bystanders() as others:
            yield
        self.count += 1
        self.disturbed += others[0] > DISTURBED
        print(f"round {self.count}, others {others[0]:.2f} cores", file=sys.stderr, flush=True)


def in_turns(sides: Mapping[str, Measure], rounds: int, *, warm: bool = True) -> Rounds:
    """All sides in every round, in this order; one round before the first does not count."""
    found = Rounds()
    if warm:
        for measure in sides.values():
            measure()
    for _ in range(rounds):
        with found.turn():
            for side, measure in sides.items():
                found.add(side, measure())
    return found


@contextmanager
def bystanders() -> Iterator[list[float]]:
    """Afterwards the one entry says how many cores processes that are not ours have taken."""
    found = [0.0]
    begin, busy, own = time.perf_counter(), _busy_seconds(), _own_seconds()
    yield found
    seconds = time.perf_counter() - begin
    found[0] = max(0.0, (_busy_seconds() - busy) - (_own_seconds() - own)) / seconds


def _busy_seconds() -> float:
    """CPU time that the whole machine has spent on work, stolen time included."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - counted_twice)


def _own_seconds() -> float:
    """CPU time of this process and all that it has started; ended children count as waited for."""
    me = psutil.Process()
    total = sum(me.cpu_times()[:4])
    for process in me.children(recursive=True):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return float(total)
