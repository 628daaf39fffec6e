"""How many threads a replica computes with: its part of the node's CPUs, among those awake."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from deployments.memory.node_book import Entry, NodeBook, start_of

SERVER_SHARE = 0.25
"""What the ingress and the proxy in front of it take, which are awake whenever anybody is."""


@dataclass(frozen=True, slots=True)
class Awake(Entry):
    """A replica that may compute; `share` is its `num_cpus`."""

    share: float


class CpuShares:
    """The replicas of a node. One that sleeps leaves its part to the others."""

    def __init__(self, folder: Path | None = None, pid: int | None = None) -> None:
        self._book = NodeBook(folder, "replicas", Awake)
        self._pid = pid or os.getpid()

    def threads(self, share: float, cpus: int) -> int:
        """For this process, which from now on counts as awake; at least one.

        `cpus` are those of the node. A share of 0 counts as the server's own.
        """
        share = share or SERVER_SHARE
        with self._book.open() as awake:
            awake[:] = [entry for entry in awake if entry.pid != self._pid]
            awake.append(Awake(self._pid, start_of(self._pid), share))
            total = SERVER_SHARE + sum(entry.share for entry in awake)
        return max(1, int(cpus * share / total))
