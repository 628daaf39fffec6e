"""NVIDIA's cards through the driver's management library, which costs no CUDA context."""

from __future__ import annotations

import logging
from typing import Any

import pynvml

from models.devices.device import Device

NATIVE_BF16 = (8, 0)
"""Compute capability of the first architecture that computes bfloat16: Ampere."""
LOGGER = logging.getLogger(__name__)


def nvidia_devices(library: Any = pynvml) -> tuple[Device, ...]:
    """All cards in the driver's order; none without driver. `library` has NVML's functions."""
    try:
        library.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_device(library, i) for i in range(library.nvmlDeviceGetCount()))
    except pynvml.NVMLError as error:
        LOGGER.warning("the NVIDIA driver does not describe its devices: %s", error)
        return ()
    finally:
        library.nvmlShutdown()


def _device(library: Any, index: int) -> Device:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    memory = library.nvmlDeviceGetMemoryInfo(handle)
    capability = tuple(library.nvmlDeviceGetCudaComputeCapability(handle))
    return Device(
        "cuda",
        index,
        _text(library.nvmlDeviceGetName(handle)),
        int(memory.total),
        int(memory.free),
        has_bf16=capability >= NATIVE_BF16,
        uuid=_text(library.nvmlDeviceGetUUID(handle)),
    )


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
