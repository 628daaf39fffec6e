"""What a process holds, and that it gives back what it has freed."""

from __future__ import annotations

import pytest

from config.settings import EmbeddingSettings, TaskSettings
from deployments.memory.watch import MemoryWatch, tolerance_bytes
from models.devices.device import Device
from models.process_memory import give_back, resident_bytes
from tests.fake_devices import GIB, gpu


def test_a_process_that_keeps_memory_without_models_says_so() -> None:
    resident = 100 << 20
    watch = MemoryWatch(50 << 20, lambda: resident)
    resident = 149 << 20
    assert watch.complaint() is None
    resident = 151 << 20
    assert watch.complaint() == "51 MiB more than at the start are held without any model."


@pytest.mark.parametrize(
    ("device", "expected"),
    [(None, GIB), (gpu(), 3 * GIB), (gpu(kind="rocm"), 3 * GIB), (gpu(kind="mps"), GIB)],
    ids=["cpu", "cuda", "rocm", "mps"],
)
def test_libraries_of_a_card_are_no_reason_to_be_replaced(
    device: Device | None, expected: int
) -> None:
    assert tolerance_bytes(TaskSettings(), device) == expected
    cached = EmbeddingSettings(cache_entries=1000)
    assert tolerance_bytes(cached, device) == expected + cached.kept_bytes
    assert tolerance_bytes(TaskSettings(memory_tolerance_bytes=2 * GIB), device) == 2 * GIB


def test_freed_memory_goes_back_to_the_system() -> None:
    blocks = [b"x" * 60_000 for _ in range(2000)]  # below malloc's threshold for mappings
    kept = b"x" * 60_001  # above them all: what is below is not the end of the heap
    held = resident_bytes()
    del blocks
    give_back()
    assert held - resident_bytes() > 80 << 20
    assert len(kept) == 60_001
