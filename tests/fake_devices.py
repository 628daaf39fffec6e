"""A node with the devices that a test wants."""

from __future__ import annotations

from models.devices.device import Device, DeviceKind

GIB = 2**30


def gpu(
    index: int = 0,
    *,
    kind: DeviceKind = "cuda",
    total: int = 24 * GIB,
    free: int | None = None,
    has_bf16: bool = True,
) -> Device:
    return Device(
        kind, index, "fake", total, total if free is None else free, has_bf16, f"GPU-{index}-fake"
    )


def cpu(total: int = 64 * GIB, free: int | None = None, *, has_bf16: bool = True) -> Device:
    return Device("cpu", 0, "fake", total, total if free is None else free, has_bf16)


class FakeProbe:
    """Satisfies `DeviceProbe`."""

    def __init__(self, *gpus: Device, host: Device | None = None) -> None:
        self._gpus = gpus
        self._host = host or cpu()

    def host(self) -> Device:
        return self._host

    def gpus(self) -> tuple[Device, ...]:
        return self._gpus
