"""How many threads a replica computes with: its part of the node's CPUs, among those awake."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from deployments.memory.node_book import Entry, NodeBook, start_of
from models.errors import ModelLoadError

SERVER_SHARE = 0.25
"""What the ingress and the proxy in front of it take, which are awake whenever anybody is."""

logger = logging.getLogger("ray.serve")


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

        `cpus` are those of the node. A share of 0 counts as the server's own. Without the book the
        process counts as alone: a replica computes with too many threads rather than not at all.
        """
        share = share or SERVER_SHARE
        try:
            others = self._enter(share)
        except (OSError, ModelLoadError) as error:
            logger.warning("The replicas awake on this node are not known: %s", error)
            others = 0.0
        return max(1, int(cpus * share / (SERVER_SHARE + share + others)))

    def _enter(self, share: float) -> float:
        """Count as awake with this share. What the others have together."""
        with self._book.open() as awake:
            awake[:] = [entry for entry in awake if entry.pid != self._pid]
            others = sum(entry.share for entry in awake)
            awake.append(Awake(self._pid, start_of(self._pid), share))
        return others
