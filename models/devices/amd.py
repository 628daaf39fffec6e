"""AMD's cards as the kernel lists them in /sys, which needs no ROCm library."""

from __future__ import annotations

from pathlib import Path

from models.devices.device import Device

ROOT = Path("/")
_NODES = "sys/class/kfd/kfd/topology/nodes"
_CDNA, _RDNA2, _RDNA3 = 90_008, 100_000, 110_000
"""`gfx_target_version`: the first architectures that multiply bfloat16 are gfx908 and gfx1100."""


def amd_devices(root: Path = ROOT) -> tuple[Device, ...]:
    """In the order of the kernel's compute nodes, which is ROCm's; CPUs among them left out."""
    folders = (folder for folder in (root / _NODES).glob("*") if folder.name.isdigit())
    found: list[Device] = []
    for folder in sorted(folders, key=lambda folder: int(folder.name)):
        values = _properties(folder / "properties")
        if values.get("simd_count", 0) > 0:
            found.append(_device(root, folder, values, len(found)))
    return tuple(found)


def computes_bf16(version: int) -> bool:
    """Whether cards of this `gfx_target_version` do so natively."""
    return _CDNA <= version < _RDNA2 or version >= _RDNA3


def target_version(architecture: str) -> int:
    """The `gfx_target_version` of a name as ROCm has it: 90010 of "gfx90a:xnack-"; 0: unknown."""
    digits = architecture.partition(":")[0].removeprefix("gfx")
    try:
        return int(digits[:-2]) * 10_000 + int(digits[-2], 16) * 100 + int(digits[-1], 16)
    except (ValueError, IndexError):
        return 0


def _device(root: Path, folder: Path, values: dict[str, int], index: int) -> Device:
    memory = root / f"sys/class/drm/renderD{values.get('drm_render_minor', 0)}/device"
    total = _number(memory / "mem_info_vram_total")
    return Device(
        "rocm",
        index,
        _text(folder / "name").strip() or "AMD GPU",
        total,
        max(0, total - _number(memory / "mem_info_vram_used")),
        has_bf16=computes_bf16(values.get("gfx_target_version", 0)),
        uuid=f"GPU-{values['unique_id']:016x}" if values.get("unique_id") else "",
    )


def _properties(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: Path) -> int:
    text = _text(path).strip()
    return int(text) if text.isdigit() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
