"""The CPUs and the memory that this process may use: of the machine, or of its container."""

from __future__ import annotations

import math
import os
import platform
import sys
from pathlib import Path

import psutil

from models.devices.device import Device

ROOT = Path("/")
_NO_LIMIT = 1 << 60
"""What control groups of version 1 say for "unlimited" is about that large."""
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""In /proc/cpuinfo, of x86 and of Arm."""
_METAL_SHARE = 0.75
"""Of Apple's unified memory what Metal recommends to use."""


def host_device(root: Path = ROOT) -> Device:
    memory = psutil.virtual_memory()
    limit, used = memory_limit(root)
    total = min(memory.total, limit)
    free = min(memory.available, max(0, limit - used))
    return Device("cpu", 0, platform.machine(), total, free, has_bf16=_has_bf16(root))


def metal_device(root: Path = ROOT) -> Device | None:
    """The GPU of an Apple chip, which shares the memory of its CPU; None elsewhere."""
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return None
    host = host_device(root)
    total = int(host.total_bytes * _METAL_SHARE)
    return Device("mps", 0, "Apple GPU", total, min(total, host.free_bytes))


def memory_limit(root: Path = ROOT) -> tuple[int, int]:
    """(limit, use) of the control group in bytes; a limit out of reach where there is none.

    Pages of files that can be dropped do not count as used.
    """
    for folder, limit_name, used_name in (
        (_group_folder(root), "memory.max", "memory.current"),
        (root / "sys/fs/cgroup", "memory.max", "memory.current"),
        (root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit = _number(folder / limit_name)
        if limit is not None:
            used = (_number(folder / used_name) or 0) - _droppable(folder / "memory.stat")
            return limit, max(0, used)
    return _NO_LIMIT, 0


def usable_cpus(root: Path = ROOT) -> int:
    """CPUs that this process may run on, as affinity and the control group's quota say."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = min(count, len(os.sched_getaffinity(0)))
    for folder in (_group_folder(root), root / "sys/fs/cgroup"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            return max(1, min(count, math.ceil(int(quota) / int(period))))
    return count


def _group_folder(root: Path) -> Path:
    """Where the control group of this process is, in version 2."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::/"):
            return root / "sys/fs/cgroup" / line[4:]
    return root / "sys/fs/cgroup"


def _has_bf16(root: Path) -> bool:
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not _BF16_FLAGS.isdisjoint(flags.split())
    return False


def _droppable(path: Path) -> int:
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file" and value.isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
