"""Which devices a node has, and which of them a process was given."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from models.devices.amd import amd_devices
from models.devices.device import Device, DeviceProbe
from models.devices.host import host_device, metal_device

LOGGER = logging.getLogger(__name__)


class NodeProbe:
    """The node that this process runs on."""

    def host(self) -> Device:
        return host_device()

    def gpus(self) -> tuple[Device, ...]:
        from models.devices.nvidia import nvidia_devices

        metal = metal_device()
        return nvidia_devices() or amd_devices() or (() if metal is None else (metal,))


def granted_device(probe: DeviceProbe, gpu_ids: Sequence[int | str]) -> Device:
    """The first of the GPUs that the scheduler gave to this process, else the host.

    `gpu_ids` are places in the driver's list, or the names (also their beginnings) of cards; with
    another name, as of a part of a card, it is the first card. A card that has failed leaves its
    place empty, which is the host.
    """
    if not gpu_ids:
        return probe.host()
    wanted, gpus = str(gpu_ids[0]), probe.gpus()
    for device in gpus:
        if wanted == str(device.index) or (device.uuid and device.uuid.startswith(wanted)):
            return device
    LOGGER.warning("no driver knows the GPU '%s' that the scheduler gave", wanted)
    return gpus[0] if gpus and not wanted.isdigit() else probe.host()
