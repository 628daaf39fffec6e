"""What a process holds, and that it gives back what it has freed."""

from __future__ import annotations

from deployments.memory.watch import MemoryWatch
from models.process_memory import give_back, resident_bytes


def test_a_process_that_keeps_memory_without_models_says_so() -> None:
    resident = 100 << 20
    watch = MemoryWatch(50 << 20, lambda: resident)
    resident = 149 << 20
    assert watch.complaint() is None
    resident = 151 << 20
    assert watch.complaint() == "51 MiB more than at the start are held without any model."


def test_freed_memory_goes_back_to_the_system() -> None:
    blocks = [b"x" * 60_000 for _ in range(2000)]  # below malloc's threshold for mappings
    kept = b"x" * 60_001  # above them all: what is below is not the end of the heap
    held = resident_bytes()
    del blocks
    give_back()
    assert held - resident_bytes() > 80 << 20
    assert len(kept) == 60_001
