"""Which requests have found their task without a replica.

Serve tells the ingress nothing of it, and asking for every request would cost more than most of
them. So only a request that has not been answered for a moment makes us ask, and none does while
its task has lately answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from deployments.ingress.observing.request_record import RequestRecord

PATIENCE_S = 0.25
"""A replica takes longer to start, so that none is there yet when we ask."""
AWAKE_S = 10.0
"""No replica is stopped sooner after its last answer, see the look-back period in graph.py."""

RunningReplicas = Callable[[str], Awaitable[int]]
"""How many of a task's replicas run."""


class WakeWatch:
    """The tasks as one ingress replica knows them. Event loop only."""

    def __init__(self, running: RunningReplicas) -> None:
        self._running = running
        self._awake_until: dict[str, float] = {}
        self._probes: set[asyncio.Task[None]] = set()

    def begun(self, record: RequestRecord) -> None:
        """The record's task is known; its request is about to wait for it."""
        if time.monotonic() < self._awake_until.get(record.task, 0.0):
            return
        loop = asyncio.get_running_loop()
        record.wake_probe = loop.call_later(PATIENCE_S, self._probe, record)

    def ended(self, record: RequestRecord) -> None:
        if record.wake_probe is not None:
            record.wake_probe.cancel()
        if record.status == 200:
            self._awake_until[record.task] = time.monotonic() + AWAKE_S

    def _probe(self, record: RequestRecord) -> None:
        probe = asyncio.get_running_loop().create_task(self._ask(record))
        self._probes.add(probe)
        probe.add_done_callback(self._probes.discard)

    async def _ask(self, record: RequestRecord) -> None:
        if not record.answered:
            record.woke = await self._running(record.task) == 0
