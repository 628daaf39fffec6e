"""Linear layers whose weights oneDNN has laid out in blocks once, at load.

The two operators are private to torch (`torch.ops.mkldnn`), so callers check `available()` and
compare results after converting a model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MKLDNN_OPERATORS = ("_reorder_linear_weight", "_linear_pointwise")


def available() -> bool:
    """Whether this build of torch has the operators."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in MKLDNN_OPERATORS
    )


def cpu_has_bf16_dot_products() -> bool:
    """Whether bfloat16 is fast here, not merely supported: AVX512-BF16, AMX or Arm BF16."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


class PrepackedLinear(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Inference-only replacement of an `nn.Linear` on CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            hidden, self._weight, self._bias, "none", [], ""
        )
        return output


def prepack_linears(model: nn.Module) -> None:
    """Replace every plain `nn.Linear` below `model`, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, PrepackedLinear(child))
