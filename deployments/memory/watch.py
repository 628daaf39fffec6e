"""Whether a replica without models has given its memory back."""

from __future__ import annotations

from collections.abc import Callable

from models.process_memory import resident_bytes


class MemoryWatch:
    """Compares with what the process held when this was made, before its first model."""

    def __init__(self, tolerance_bytes: int, resident: Callable[[], int] = resident_bytes) -> None:
        self._resident = resident
        self._tolerance = tolerance_bytes
        self._baseline = resident()

    def complaint(self) -> str | None:
        """To be asked while no model is there: what is wrong, if anything is."""
        kept = self._resident() - self._baseline
        if kept <= self._tolerance:
            return None
        return f"{kept >> 20} MiB more than at the start are held without any model."
