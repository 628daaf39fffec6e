"""Models whose calls end their replica again and again are left alone for a while.

The process that a native library ended remembers nothing, so the ingress does: without this, a file
that crashes its loader would end every new replica, and all other models of the task with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from models.errors import ModelLoadError

MAX_LOSSES = 3
"""Replicas lost in a row, without an answer of the model in between."""
FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 300.0
MAX_DOUBLINGS = 10
"""More than lead to the longest pause; without a bound the power outgrows a float."""


class LossBreaker:
    """The losses of one task, by model."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lost: dict[str, set[str]] = {}
        self._paused_until: dict[str, float] = {}

    def check(self, model_id: str) -> None:
        """Raises ModelLoadError while the model is left alone."""
        wait = self._paused_until.get(model_id, 0.0) - self._clock()
        if wait > 0:
            message = f"The model '{model_id}' has ended its process again and again."
            raise ModelLoadError(message, retry_after=wait)

    def answered(self, model_id: str) -> None:
        """The model's process is alive."""
        if model_id in self._lost:
            del self._lost[model_id]
            self._paused_until.pop(model_id, None)

    def lost(self, model_id: str, replica: str) -> None:
        """A call for the model was lost with a replica; that of others on the same one counts
        once."""
        replicas = self._lost.setdefault(model_id, set())
        if replica in replicas:
            return
        replicas.add(replica)
        excess = len(replicas) - MAX_LOSSES
        if excess >= 0:
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(excess, MAX_DOUBLINGS))
            self._paused_until[model_id] = self._clock() + pause
