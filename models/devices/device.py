"""What is known of a device, and the number format that runs well on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

DeviceKind = Literal["cuda", "rocm", "mps", "cpu"]
NumberFormat = Literal["float32", "bfloat16", "float16"]

_FORMATS: dict[tuple[DeviceKind, bool], NumberFormat] = {
    ("cuda", True): "bfloat16",
    ("cuda", False): "float16",  # before Ampere bfloat16 is emulated
    ("rocm", True): "bfloat16",
    ("rocm", False): "float16",
    ("mps", True): "float16",  # the backend has no fast bfloat16 kernels
    ("mps", False): "float16",
    ("cpu", True): "bfloat16",
    ("cpu", False): "float32",
}
"""By kind, and by whether the device computes bfloat16 natively and fast."""
BYTES: dict[NumberFormat, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Device:
    """`uuid` is the vendor's name of one card; memory in bytes, as it was when it was asked for."""

    kind: DeviceKind
    index: int
    name: str
    total_bytes: int
    free_bytes: int
    has_bf16: bool = False
    """Whether it computes bfloat16 natively, not merely by emulation."""
    uuid: str = ""

    @property
    def key(self) -> str:
        """Its name among the devices of its node."""
        return "cpu" if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def is_gpu(self) -> bool:
        return self.kind != "cpu"

    @property
    def torch_name(self) -> str:
        """What torch calls it; AMD's cards are "cuda" there, too."""
        return "cuda" if self.kind == "rocm" else self.kind


class DeviceProbe(Protocol):
    """Looks at a node; the real one is `detection.NodeProbe`."""

    def host(self) -> Device:
        """The CPUs, with the memory that this process's container may use."""

    def gpus(self) -> tuple[Device, ...]:
        """All accelerators of the node; none where there is no driver."""


def number_format(
    kind: DeviceKind, *, has_bf16: bool, stored: NumberFormat | None = None
) -> NumberFormat:
    """The format for computing on a device, which goes for floating-point tensors alone.

    `stored` is the format of weights whose precision is to be kept: float16 stays float16 on a
    GPU, float32 stays float32 on a CPU. Without it the fastest one is taken.
    """
    if stored == "float16" and kind in ("cuda", "rocm"):
        return "float16"
    if stored == "float32" and kind == "cpu":
        return "float32"
    return _FORMATS[kind, has_bf16]
