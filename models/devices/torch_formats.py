"""The number format for a device of torch, and the share of a GPU that this process may take."""

from __future__ import annotations

import torch

from models import prepacked_linear
from models.devices.amd import computes_bf16, target_version
from models.devices.device import DeviceKind, NumberFormat, number_format

_NAMES: dict[torch.dtype, NumberFormat] = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


def best_dtype(device: torch.device, stored: torch.dtype | None = None) -> torch.dtype:
    """`device.number_format` with what torch itself says of the hardware.

    `stored`: weights whose precision is to be kept; formats other than the three count as float32.
    """
    name = None if stored is None else _NAMES.get(stored, "float32")
    chosen: torch.dtype = getattr(
        torch, number_format(_kind(device), has_bf16=_has_bf16(device), stored=name)
    )
    return chosen


def limit_memory(name: str, fraction: float) -> None:
    """Let torch take at most this part of a GPU's memory in this process; a CPU has no limit.

    Beyond it torch raises an out-of-memory error here, instead of in a neighbour.
    """
    fraction = min(1.0, max(0.0, fraction))
    if name == "cuda":
        torch.cuda.set_per_process_memory_fraction(fraction)
    elif name == "mps":
        torch.mps.set_per_process_memory_fraction(fraction)


def _kind(device: torch.device) -> DeviceKind:
    if device.type == "cuda":
        return "rocm" if torch.version.hip else "cuda"
    return "mps" if device.type == "mps" else "cpu"


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda" and torch.version.hip:  # torch calls it supported on all of them
        return computes_bf16(target_version(_architecture(device)))
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return prepacked_linear.available() and prepacked_linear.cpu_has_bf16_dot_products()
    return False


def _architecture(device: torch.device) -> str:
    """Of an AMD card, as "gfx90a:sramecc+:xnack-"."""
    return str(torch.cuda.get_device_properties(device).gcnArchName)
