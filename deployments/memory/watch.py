"""Whether a replica without models has given its memory back."""

from __future__ import annotations

from collections.abc import Callable

from config.settings import TaskSettings
from models.devices.device import Device
from models.process_memory import resident_bytes

TOLERANCE_BYTES = 1 << 30
"""Of libraries that the first model imports, and of heaps that are not given back."""
GPU_LIBRARIES_BYTES = 2 << 30
"""Of the host's memory, what the libraries of CUDA and ROCm hold once a model has used them."""


def tolerance_bytes(settings: TaskSettings, gpu: Device | None) -> int:
    """What a replica may hold without any model, more than at its start."""
    chosen = settings.memory_tolerance_bytes
    if chosen is None:
        on_card = gpu is not None and gpu.kind in ("cuda", "rocm")
        chosen = TOLERANCE_BYTES + (GPU_LIBRARIES_BYTES if on_card else 0)
    return chosen + settings.kept_bytes


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
