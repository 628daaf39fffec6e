"""Which number format a generation model runs in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from models import prepacked_linear
from models.errors import ModelLoadError
from models.transformers_lm.precision import chosen_dtype, stored_dtype

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16


@pytest.mark.parametrize(
    ("fast", "stored", "expected"),
    [(True, F16, BF16), (True, BF16, BF16), (True, F32, F32), (True, None, F32), (False, F16, F32)],
)
def test_on_cpu(monkeypatch: pytest.MonkeyPatch, fast: bool, stored: Any, expected: Any) -> None:
    monkeypatch.setattr(prepacked_linear, "available", lambda: True)
    monkeypatch.setattr(prepacked_linear, "cpu_has_bf16_dot_products", lambda: fast)
    assert chosen_dtype("auto", stored, CPU) is expected


@pytest.mark.parametrize(
    ("supported", "stored", "expected"),
    [(True, BF16, BF16), (True, F16, F16), (True, F32, BF16), (False, BF16, F16)],
)
def test_on_cuda(
    monkeypatch: pytest.MonkeyPatch, supported: bool, stored: Any, expected: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
    assert chosen_dtype("auto", stored, CUDA) is expected


def test_on_mps_and_as_asked_for() -> None:
    assert chosen_dtype("auto", BF16, MPS) is F16
    assert chosen_dtype("float16", F32, CPU) is F16
    with pytest.raises(ModelLoadError, match="int8"):
        chosen_dtype("int8", F32, CPU)  # type: ignore[arg-type]


def test_what_a_configuration_states() -> None:
    assert stored_dtype(SimpleNamespace(dtype="bfloat16")) is BF16
    assert stored_dtype(SimpleNamespace(dtype=F16)) is F16
    assert stored_dtype(SimpleNamespace(dtype="auto")) is None
    assert stored_dtype(SimpleNamespace()) is None
