"""How torch computes on CPUs: with how many threads, and how much it remembers of what it did."""

from __future__ import annotations

import os

import torch

CACHED_SHAPES = 64
SHAPE_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
"""Torch (through ideep) and oneDNN keep a kernel for each shape that they have met, up to 1,024 of
each kind. Packed batches hardly ever have a shape twice: an encoder of 45 MB grew by 4 MB with each
batch, and was no faster for it. Both are read when the first kernel is made.
https://github.com/pytorch/pytorch/issues/27971, https://github.com/intel/ideep/issues/14,
https://oneapi-src.github.io/oneDNN/dev_guide_primitive_cache.html"""


def use_cpu_threads(n_threads: int) -> None:
    """To be called on every thread that computes: their number is a setting of the thread.

    What the operator says of the caches stays.
    """
    for variable in SHAPE_CACHES:
        os.environ.setdefault(variable, str(CACHED_SHAPES))
    torch.set_num_threads(n_threads)
