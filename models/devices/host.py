"""The CPUs and the memory that this process may use: of the machine, or of its container."""

from __future__ import annotations

import math
import os
import platform
import sys
from pathlib import Path, PurePosixPath

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

    The limits of the groups above it hold too: the limit is the lowest, and what it leaves is what
    the fullest of them leaves. Pages of files that can be dropped do not count as used.
    """
    limits, rooms = [], []
    for folder, limit_name, used_name in (
        *((group, "memory.max", "memory.current") for group in _groups(root)),
        *((g, "memory.limit_in_bytes", "memory.usage_in_bytes") for g in _groups(root, "memory")),
    ):
        limit = _number(folder / limit_name)
        if limit is not None:
            used = (_number(folder / used_name) or 0) - _droppable(folder / "memory.stat")
            limits.append(limit)
            rooms.append(limit - max(0, used))
    if not limits:
        return _NO_LIMIT, 0
    return min(limits), max(0, min(limits) - min(rooms))


def usable_cpus(root: Path = ROOT) -> int:
    """CPUs that this process may run on, as affinity and the quotas of its control groups say."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = min(count, len(os.sched_getaffinity(0)))
    return max(1, min([count, *(math.ceil(quota / period) for quota, period in _quotas(root))]))


def _quotas(root: Path) -> list[tuple[int, int]]:
    """Microseconds of a CPU in every so many, of each control group that has such a limit."""
    found = [_text(group / "cpu.max").split() for group in _groups(root)]
    found += [
        [_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        for group in _groups(root, "cpu")
    ]
    return [
        (int(fields[0]), int(fields[1]))
        for fields in found
        if len(fields) == 2 and all(map(str.isdigit, fields)) and int(fields[1])
    ]


def _groups(root: Path, controller: str = "") -> list[Path]:
    """Where the control group of this process may be, and those above it, the nearest first.

    In version 2, or that of a `controller` of version 1. A container often sees its own group as
    the topmost one, whatever its path is.
    """
    top = root / "sys/fs/cgroup" / controller
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            parts = PurePosixPath(path.lstrip("/")).parts
            return [top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [top]


def _has_bf16(root: Path) -> bool:
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not _BF16_FLAGS.isdisjoint(flags.split())
    return False


def _droppable(path: Path) -> int:
    """Of the group and those below it, as `use` is: version 1 tells both."""
    pairs = (line.partition(" ") for line in _text(path).splitlines())
    values = {name: value for name, _, value in pairs}
    value = values.get("total_inactive_file", values.get("inactive_file", ""))
    return int(value) if value.isdigit() else 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
