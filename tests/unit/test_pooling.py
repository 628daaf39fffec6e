"""Pooling of a flat token axis, against the definition written out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from models.encoders.pooling import pool

LENGTHS = (1, 1, 3, 7)
HIDDEN = np.random.default_rng(0).standard_normal((sum(LENGTHS), 4)).astype(np.float32)

DEFINITIONS: dict[str, Callable[[Any], Any]] = {
    "cls": lambda states: states[0],
    "lasttoken": lambda states: states[-1],
    "max": lambda states: states.max(0),
    "mean": lambda states: states.mean(0),
    "mean_sqrt_len_tokens": lambda states: states.sum(0) / np.sqrt(len(states)),
    "weightedmean": lambda states: np.average(states, 0, np.arange(1, len(states) + 1)),
}


def _expected(mode: str) -> Any:
    parts = np.split(HIDDEN, np.cumsum(LENGTHS)[:-1])
    return np.stack([DEFINITIONS[mode](states) for states in parts])


@pytest.mark.parametrize("mode", DEFINITIONS)
def test_each_mode_is_what_it_says(mode: str) -> None:
    pooled = pool(torch.from_numpy(HIDDEN), LENGTHS, (mode,))
    np.testing.assert_allclose(pooled.numpy(), _expected(mode), atol=1e-6)


def test_several_modes_are_put_side_by_side() -> None:
    pooled = pool(torch.from_numpy(HIDDEN), LENGTHS, ("max", "mean")).numpy()
    np.testing.assert_allclose(pooled, np.hstack([_expected("max"), _expected("mean")]), atol=1e-6)


@pytest.mark.parametrize("mode", DEFINITIONS)
def test_reduced_precision_is_pooled_in_float32(mode: str) -> None:
    pooled = pool(torch.from_numpy(HIDDEN).bfloat16(), LENGTHS, (mode,))
    assert pooled.dtype == torch.float32
    np.testing.assert_allclose(pooled.numpy(), _expected(mode), atol=0.03)


@pytest.mark.parametrize("mode", DEFINITIONS)
def test_a_device_without_a_kernel_for_it_pools_the_same(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("aten::segment_reduce is not implemented for the MPS device")

    monkeypatch.setattr(torch, "segment_reduce", missing)
    pooled = pool(torch.from_numpy(HIDDEN), LENGTHS, (mode,))
    np.testing.assert_allclose(pooled.numpy(), _expected(mode), atol=1e-6)
