"""What this process holds of the machine's memory, and giving back what it has freed."""

from __future__ import annotations

import ctypes
import gc
import sys

import psutil


def resident_bytes() -> int:
    """The resident set of this process."""
    return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Return freed memory to the system: allocators keep it for themselves otherwise.

    Takes some tens of milliseconds.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
