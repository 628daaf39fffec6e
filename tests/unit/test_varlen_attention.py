"""When the kernel for all lengths at once is used, and what it is asked for: with a stand-in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from models.encoders import torch_forward, varlen_attention
from models.encoders.packed_transformer import Packing, packed_attention, packing_of
from models.encoders.torch_forward import TorchOptions
from models.encoders.varlen_attention import Offsets, fits_kernel, moved, offsets_of

LENGTHS = (1, 3, 3, 7, 12)
CUDA = torch.device("cuda")


def kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    key_starts: Tensor,
    longest: int,
    longest_key: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """What torch documents of `varlen_attn`, sequence by sequence, on any device."""
    assert starts.dtype == torch.int32
    assert starts is key_starts
    assert longest == longest_key == int(starts.diff().max())
    before, after = (float("inf") if side < 0 else side for side in window_size)
    outputs = []
    for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        places = torch.arange(last - first)
        behind = places[:, None] - places[None, :]
        mask = (behind <= before) & (-behind <= after)
        q, k, v = (t[first:last].transpose(0, 1)[None] for t in (query, key, value))
        attended = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, scale=scale, enable_gqa=enable_gqa
        )
        outputs.append(attended[0].transpose(0, 1))
    return torch.cat(outputs)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has an Ampere GPU."""
    monkeypatch.setattr(varlen_attention, "KERNEL", kernel)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))


def _states(heads: int, dim: int = 16, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(1, heads, sum(LENGTHS), dim).to(dtype)


def _offsets(lengths: Sequence[int]) -> Offsets:
    starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return Offsets(starts, max(lengths))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_it_computes_what_the_groups_compute(
    gpu: None, causal: bool, window: int | None, key_heads: int
) -> None:
    torch.manual_seed(0)
    states = (_states(4), _states(key_heads), _states(key_heads))
    options: dict[str, Any] = {"scaling": 0.3, "sliding_window": window, "is_causal": causal}
    module = torch.nn.Module()
    grouped, _ = packed_attention(module, *states, None, packing=packing_of(LENGTHS), **options)
    packing = Packing(packing_of(LENGTHS).groups, _offsets(LENGTHS))
    at_once, _ = packed_attention(module, *states, None, packing=packing, **options)
    assert at_once.shape == grouped.shape == (1, sum(LENGTHS), 4, 16)
    torch.testing.assert_close(at_once, grouped, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("dim", "dtype", "expected"),
    [
        (64, torch.bfloat16, True),
        (64, torch.float16, True),
        (256, torch.float16, True),
        (64, torch.float32, False),
        (264, torch.float16, False),
        (12, torch.float16, False),
    ],
)
def test_which_states_fit(dim: int, dtype: torch.dtype, expected: bool) -> None:
    states = _states(2, dim, dtype)
    assert fits_kernel(states, states, states) is expected
    assert not fits_kernel(states, states, _states(2, dim + 8, dtype))


def test_states_that_do_not_fit_go_in_groups(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen_attention, "KERNEL", None)  # would fail if it were called
    states = _states(2, dtype=torch.float32)
    packing = Packing(packing_of(LENGTHS).groups, _offsets(LENGTHS))
    attended, _ = packed_attention(torch.nn.Module(), states, states, states, None, packing=packing)
    assert attended.shape == (1, sum(LENGTHS), 2, 16)


def test_where_offsets_are_made(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen_attention, "moved", lambda tensor, _: tensor)
    found = offsets_of(LENGTHS, CUDA)
    assert found is not None
    assert (found.starts.tolist(), found.longest) == ([0, 1, 4, 7, 14, 26], 12)
    assert found.starts.dtype == torch.int32
    assert packing_of(LENGTHS, CUDA).offsets is not None
    assert packing_of(LENGTHS, torch.device("cpu")).offsets is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert offsets_of(LENGTHS, CUDA) is None, "flash attention starts at Ampere"


def test_no_kernel_no_offsets(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen_attention, "KERNEL", None)
    assert offsets_of(LENGTHS, CUDA) is None


class _Traced:
    """Stands in for a tensor; remembers how it was moved."""

    def __init__(self) -> None:
        self.steps: list[Any] = []

    def pin_memory(self) -> _Traced:
        self.steps.append("pinned")
        return self

    def to(self, device: torch.device, **options: Any) -> _Traced:
        self.steps.append((device.type, options))
        return self


def test_inputs_go_to_a_gpu_from_pinned_memory() -> None:
    to_gpu: Any = _Traced()
    moved(to_gpu, CUDA)
    assert to_gpu.steps == ["pinned", ("cuda", {"non_blocking": True})]
    to_cpu: Any = _Traced()
    moved(to_cpu, torch.device("cpu"))
    assert to_cpu.steps == [("cpu", {})]


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_the_precision_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype
) -> None:
    def supported(*, including_emulation: bool) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert torch_forward._dtype(TorchOptions(1, "auto", "cuda")) is expected
    assert torch_forward._dtype(TorchOptions(1, "float32", "cuda")) is torch.float32
