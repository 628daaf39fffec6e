"""Attention over sequences of any lengths in one call, where torch has a kernel for it.

That is CUDA with 16-bit states; everywhere else `packed_transformer` calls once per group of equal
lengths. Not measured: choice and arguments are tested with a stand-in for the kernel, and at
load `TorchRunner` compares its results with the plain model as always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

WIDEST_HEAD = 256
HEAD_STEP = 8
KERNEL_TYPES = (torch.float16, torch.bfloat16)
FIRST_CAPABILITY = (8, 0)
"""Ampere: what the flash attention of torch starts at."""


def _kernel() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # older than torch 2.10
        return None
    kernel: Callable[..., Any] = varlen_attn
    return kernel


KERNEL: Any = _kernel()


@dataclass(frozen=True, slots=True)
class Offsets:
    """Where sequences begin on the token axis, and where the last ends: int32 [sequences + 1]."""

    starts: Tensor
    longest: int


def offsets_of(lengths: Sequence[int], device: torch.device) -> Offsets | None:
    """None where there is no kernel for this device."""
    if not device_has_kernel(device):
        return None
    starts = torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32)
    return Offsets(moved(starts, device), max(lengths))


def device_has_kernel(device: torch.device) -> bool:
    if KERNEL is None or device.type != "cuda":
        return False
    return bool(torch.cuda.get_device_capability(device) >= FIRST_CAPABILITY)


def fits_kernel(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether states [1, heads, tokens, dim] are such as the kernel takes."""
    dim = query.shape[-1]
    return (
        query.dtype in KERNEL_TYPES
        and dim <= WIDEST_HEAD
        and dim % HEAD_STEP == 0
        and key.shape[-1] == value.shape[-1] == dim
    )


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Offsets,
    *,
    causal: bool,
    window: int | None,
    scale: float | None,
) -> Tensor:
    """[1, heads, tokens, dim] to [1, tokens, heads, dim]; see `packed_attention`.

    `window` counts a token itself: the kernel counts those beside it.
    """
    before = -1 if window is None else window - 1
    attended = KERNEL(
        *(states[0].transpose(0, 1).contiguous() for states in (query, key, value)),
        offsets.starts,
        offsets.starts,
        offsets.longest,
        offsets.longest,
        scale=scale,
        window_size=(before, 0 if causal else before),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    result: Tensor = attended.unsqueeze(0)
    return result


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device; to a GPU from pinned memory, so that the copy runs beside other work."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
