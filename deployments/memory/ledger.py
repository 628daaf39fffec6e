"""Who may hold how much of a node's memory: what a replica's models ask before they are loaded."""

from __future__ import annotations

from typing import Protocol


class MemoryLedger(Protocol):
    """The book of one replica's models. Blocking: called in the threads that load and unload."""

    def reserve(self, model_id: str) -> None:
        """Take what a model needs, in place of what it had.

        Raises MemoryRefusedError, which names what holds the memory; nothing is held then.
        """

    def release(self, model_id: str) -> None:
        """Give back what a model had, also where it had nothing."""


class NoLedger:
    """Whatever is asked for is there."""

    def reserve(self, model_id: str) -> None:
        pass

    def release(self, model_id: str) -> None:
        pass
