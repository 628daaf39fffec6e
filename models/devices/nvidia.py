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
    """All cards that work, in the driver's order; none without one. `library` is NVML."""
    try:
        library.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        found = [_described(library, i) for i in range(library.nvmlDeviceGetCount())]
        return tuple(device for device in found if device is not None)
    except pynvml.NVMLError as error:
        LOGGER.warning("the NVIDIA driver does not count its devices: %s", error)
        return ()
    finally:
        library.nvmlShutdown()


def _described(library: Any, index: int) -> Device | None:
    """None for a card that has failed, which takes no other with it."""
    try:
        return _device(library, index)
    except pynvml.NVMLError as error:
        LOGGER.warning("the NVIDIA driver does not describe its device %d: %s", index, error)
        return None


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
