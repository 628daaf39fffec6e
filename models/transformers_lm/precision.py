"""In which number format a generation model runs."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch

from models.devices.torch_formats import best_dtype
from models.errors import ModelLoadError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def chosen_dtype(wanted: Dtype, stored: torch.dtype | None, device: torch.device) -> torch.dtype:
    """`wanted`, or for "auto" what is fast without losing much of the `stored` weights.

    CPU: bfloat16 for weights of 16 bits where the CPU has dot products of bfloat16 (decoding is
    bound by memory: twice the tokens per second), else float32. Other devices: see
    `devices.number_format`. A GGUF file's weights count as 16-bit ones. Raises ModelLoadError for
    other names.
    """
    if wanted not in get_args(Dtype):
        raise ModelLoadError(f"'{wanted}' is none of the number formats {get_args(Dtype)}")
    if wanted != "auto":
        named: torch.dtype = getattr(torch, wanted)
        return named
    return best_dtype(device, stored or torch.float32)


def stored_dtype(config: Any) -> torch.dtype | None:
    """The format that a model's configuration states for its weights."""
    stated = getattr(config, "dtype", None)
    named = getattr(torch, stated, None) if isinstance(stated, str) else stated
    return named if isinstance(named, torch.dtype) else None
