"""In which number format a generation model runs."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch

from models import prepacked_linear
from models.errors import ModelLoadError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
HALVES = (torch.bfloat16, torch.float16)


def chosen_dtype(wanted: Dtype, stored: torch.dtype | None, device: torch.device) -> torch.dtype:
    """`wanted`, or for "auto" what is fast without losing much of the `stored` weights.

    CPU: float32, but bfloat16 for weights of 16 bits where the CPU has dot products of bfloat16
    (decoding is bound by memory: twice the tokens per second). CUDA: 16-bit weights as they are,
    others as bfloat16 where it is supported, else as float16. MPS: float16. A GGUF file's
    weights count as 16-bit ones. Raises ModelLoadError for other names.
    """
    if wanted not in get_args(Dtype):
        raise ModelLoadError(f"'{wanted}' is none of the number formats {get_args(Dtype)}")
    if wanted != "auto":
        named: torch.dtype = getattr(torch, wanted)
        return named
    if device.type == "cpu":
        fast = prepacked_linear.available() and prepacked_linear.cpu_has_bf16_dot_products()
        return torch.bfloat16 if fast and stored in HALVES else torch.float32
    if device.type == "cuda" and stored is torch.float16:
        return torch.float16
    supported = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if supported else torch.float16


def stored_dtype(config: Any) -> torch.dtype | None:
    """The format that a model's configuration states for its weights."""
    stated = getattr(config, "dtype", None)
    named = getattr(torch, stated, None) if isinstance(stated, str) else stated
    return named if isinstance(named, torch.dtype) else None
