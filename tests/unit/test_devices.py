"""What a node has for computing: cards, memory, number formats. No driver is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest
import torch

from models.devices.amd import amd_devices
from models.devices.detection import NodeProbe, granted_device
from models.devices.device import NumberFormat, number_format
from models.devices.host import host_device, memory_limit, metal_device, usable_cpus
from models.devices.nvidia import nvidia_devices
from models.devices.torch_formats import best_dtype, limit_memory
from tests.fake_devices import FakeProbe, gpu

GIB = 2**30


class FakeDriver:
    """NVML's functions over two cards."""

    cards = (("Tesla T4", (7, 5), 16, b"GPU-aaa"), ("H100", (9, 0), 80, "GPU-bbb"))

    def __init__(self, broken: bool = False, lost: str = "") -> None:
        self.broken = broken
        self.lost = lost
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        if self.broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetMemoryInfo(self, card: Any) -> Any:  # noqa: N802
        if card[0] == self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(total=card[2] * GIB, free=card[2] * GIB - GIB)

    def nvmlDeviceGetCudaComputeCapability(self, card: Any) -> Any:  # noqa: N802
        return list(card[1])

    def nvmlDeviceGetName(self, card: Any) -> Any:  # noqa: N802
        return card[0]

    def nvmlDeviceGetUUID(self, card: Any) -> Any:  # noqa: N802
        return card[3]


def test_nvidia_cards_and_what_they_can() -> None:
    driver = FakeDriver()
    old, new = nvidia_devices(driver)
    assert (old.name, old.key, old.total_bytes, old.free_bytes) == (
        "Tesla T4", "cuda:0", 16 * GIB, 15 * GIB,
    )  # fmt: skip
    assert (old.has_bf16, new.has_bf16) == (False, True)
    assert (old.uuid, new.uuid) == ("GPU-aaa", "GPU-bbb")
    assert driver.open == 0


def test_a_driver_that_fails_has_no_cards() -> None:
    driver = FakeDriver(broken=True)
    assert nvidia_devices(driver) == ()
    assert driver.open == 0


def test_a_card_that_has_failed_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    driver = FakeDriver(lost="Tesla T4")
    (new,) = nvidia_devices(driver)
    assert (new.name, new.key) == ("H100", "cuda:1")
    assert "does not describe its device 0" in caplog.text
    assert driver.open == 0


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_amd_cards_in_the_order_of_the_kernel(tmp_path: Path) -> None:
    nodes = tmp_path / "sys/class/kfd/kfd/topology/nodes"
    write(nodes / "0/properties", "cpu_cores_count 16\nsimd_count 0\n")
    for node, version, minor in ((10, 110_000, 129), (2, 100_300, 128)):
        text = f"simd_count 96\ngfx_target_version {version}\ndrm_render_minor {minor}\n"
        write(nodes / f"{node}/properties", text + "unique_id 255\n")
        write(nodes / f"{node}/name", f"card{node}\n")
        memory = tmp_path / f"sys/class/drm/renderD{minor}/device"
        write(memory / "mem_info_vram_total", f"{8 * GIB}\n")
        write(memory / "mem_info_vram_used", f"{GIB}\n")
    first, second = amd_devices(tmp_path)
    assert (first.name, first.key, first.has_bf16) == ("card2", "rocm:0", False)
    assert (second.name, second.key, second.has_bf16) == ("card10", "rocm:1", True)
    assert (first.total_bytes, first.free_bytes) == (8 * GIB, 7 * GIB)
    assert (first.uuid, first.torch_name) == ("GPU-00000000000000ff", "cuda")
    assert amd_devices(tmp_path / "nothing") == ()


def test_an_apple_gpu_shares_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert metal_device(tmp_path) is None or sys.platform == "darwin"
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    found = metal_device(tmp_path)
    assert found is not None
    assert (found.key, found.total_bytes) == (
        "mps:0",
        int(0.75 * host_device(tmp_path).total_bytes),
    )


def test_the_memory_of_a_container(tmp_path: Path) -> None:
    machine = psutil.virtual_memory().total
    assert host_device(tmp_path).total_bytes == machine
    write(tmp_path / "proc/self/cgroup", "0::/pod/a\n")
    group = tmp_path / "sys/fs/cgroup/pod/a"
    write(group / "memory.max", "max\n")
    write(tmp_path / "sys/fs/cgroup/memory.max", f"{GIB // 2}\n")
    assert memory_limit(tmp_path) == (GIB // 2, 0)
    write(tmp_path / "sys/fs/cgroup/memory.max", "max\n")
    write(group / "memory.max", f"{GIB}\n")
    write(group / "memory.current", f"{GIB // 2}\n")
    write(group / "memory.stat", f"anon 1\ninactive_file {GIB // 4}\n")
    assert memory_limit(tmp_path) == (GIB, GIB // 4)
    assert host_device(tmp_path).total_bytes == GIB
    assert host_device(tmp_path).free_bytes <= 3 * GIB // 4


def test_the_limits_of_all_groups_above_hold(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/slice/pod/a\n")
    for name, limit, used in (("slice", 8, 7), ("slice/pod", 2, 0), ("slice/pod/a", 4, 0)):
        group = tmp_path / "sys/fs/cgroup" / name
        write(group / "memory.max", f"{limit * GIB}\n")
        write(group / "memory.current", f"{used * GIB}\n")
    assert memory_limit(tmp_path) == (2 * GIB, GIB)


OLD_GROUPS = "3:cpu,cpuacct:/user/a\n2:memory:/user/a\n1:name=systemd:/other\n0::/\n"
"""As /proc/self/cgroup lists them, of version 1 and of both."""


def test_a_container_of_the_old_kind(tmp_path: Path) -> None:
    write(tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{GIB}")
    write(tmp_path / "sys/fs/cgroup/memory/memory.usage_in_bytes", f"{GIB // 2}")
    stat = f"inactive_file 1\ntotal_inactive_file {GIB // 4}\n"
    write(tmp_path / "sys/fs/cgroup/memory/memory.stat", stat)
    assert memory_limit(tmp_path) == (GIB, GIB // 4)
    write(tmp_path / "proc/self/cgroup", OLD_GROUPS)
    assert memory_limit(tmp_path) == (GIB, GIB // 4)
    write(tmp_path / "sys/fs/cgroup/memory/user/a/memory.limit_in_bytes", f"{GIB // 2}")
    assert memory_limit(tmp_path) == (GIB // 2, 0)


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("", 8)]
)
def test_the_cpus_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cpus: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    write(tmp_path / "sys/fs/cgroup/cpu.max", quota)
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize(("own", "above", "cpus"), [("max", "300000", 3), ("200000", "300000", 2)])
def test_the_quotas_of_all_groups_above_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, above: str, cpus: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    write(tmp_path / "proc/self/cgroup", "0::/pod/a\n")
    write(tmp_path / "sys/fs/cgroup/pod/cpu.max", f"{above} 100000\n")
    write(tmp_path / "sys/fs/cgroup/pod/a/cpu.max", f"{own} 100000\n")
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize("folder", ["cpu", "cpu/user/a"])
@pytest.mark.parametrize(("quota", "cpus"), [("-1", 8), ("150000", 2), ("50000", 1)])
def test_the_cpus_of_a_container_of_the_old_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, quota: str, cpus: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    write(tmp_path / "proc/self/cgroup", OLD_GROUPS)
    write(tmp_path / "sys/fs/cgroup" / folder / "cpu.cfs_quota_us", f"{quota}\n")
    write(tmp_path / "sys/fs/cgroup" / folder / "cpu.cfs_period_us", "100000\n")
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize(
    ("line", "native"),
    [("flags : fpu avx512_bf16", True), ("Features : fp bf16", True), ("flags : avx2", False)],
)
def test_bfloat16_of_a_cpu(tmp_path: Path, line: str, native: bool) -> None:
    write(tmp_path / "proc/cpuinfo", f"processor : 0\n{line}\n")
    assert host_device(tmp_path).has_bf16 is native


@pytest.mark.parametrize(
    ("ids", "key"),
    [([], "cpu"), ([1], "cuda:1"), (["1"], "cuda:1"), (["GPU-1"], "cuda:1"), (["MIG-x"], "cuda:0")],
)
def test_the_device_that_the_scheduler_gave(ids: list[int | str], key: str) -> None:
    assert granted_device(FakeProbe(gpu(0), gpu(1)), ids).key == key


def test_a_granted_gpu_without_driver_is_the_cpu() -> None:
    assert granted_device(FakeProbe(), [0]).key == "cpu"


def test_a_granted_gpu_that_has_failed_is_the_cpu() -> None:
    assert granted_device(FakeProbe(gpu(0), gpu(2)), [1]).key == "cpu"


# --- number formats ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "native", "stored", "expected"),
    [
        ("cuda", True, None, "bfloat16"),
        ("cuda", False, None, "float16"),
        ("cuda", False, "bfloat16", "float16"),
        ("cuda", True, "float16", "float16"),
        ("cuda", True, "float32", "bfloat16"),
        ("rocm", True, "float32", "bfloat16"),
        ("rocm", False, None, "float16"),
        ("mps", True, None, "float16"),
        ("mps", False, "bfloat16", "float16"),
        ("cpu", True, None, "bfloat16"),
        ("cpu", True, "float16", "bfloat16"),
        ("cpu", True, "float32", "float32"),
        ("cpu", False, None, "float32"),
        ("cpu", False, "bfloat16", "float32"),
    ],
)
def test_the_number_format_of_a_device(
    kind: Any, native: bool, stored: NumberFormat | None, expected: NumberFormat
) -> None:
    assert number_format(kind, has_bf16=native, stored=stored) == expected


def test_integers_are_never_cast() -> None:
    module = torch.nn.Linear(2, 2)
    module.register_buffer("positions", torch.arange(4))
    module.register_buffer("packed", torch.zeros(4, dtype=torch.uint8))
    module.to(best_dtype(torch.device("mps")))
    assert module.weight.dtype == torch.float16
    assert (module.positions.dtype, module.packed.dtype) == (torch.int64, torch.uint8)


def test_amd_cards_are_no_cuda_to_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def spy(kind: str, **_: Any) -> str:
        asked.append(kind)
        return "float16"

    monkeypatch.setattr("models.devices.torch_formats.number_format", spy)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr("models.devices.torch_formats._architecture", lambda _: "gfx942")
    best_dtype(torch.device("cuda"))
    monkeypatch.setattr(torch.version, "hip", "7.0")
    best_dtype(torch.device("cuda"))
    assert asked == ["cuda", "rocm"]


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("gfx906:sramecc+:xnack-", torch.float16),
        ("gfx90a:sramecc+:xnack-", torch.bfloat16),
        ("gfx1030", torch.float16),
        ("gfx1100", torch.bfloat16),
        ("gfx11-generic", torch.float16),
    ],
)
def test_the_cards_of_amd_that_compute_bfloat16(
    monkeypatch: pytest.MonkeyPatch, architecture: str, expected: torch.dtype
) -> None:
    """Torch itself takes all of them for such."""
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    properties = SimpleNamespace(gcnArchName=architecture)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert best_dtype(torch.device("cuda")) == expected


def test_a_share_is_set_where_there_is_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *given: calls.append(given)
    )
    monkeypatch.setattr(
        torch.mps, "set_per_process_memory_fraction", lambda *given: calls.append(given)
    )
    limit_memory("cpu", 0.5)
    assert calls == []
    limit_memory("cuda", 0.25)
    limit_memory("mps", 1.5)
    assert calls == [(0.25,), (1.0,)]


def test_a_look_at_the_node_imports_no_engine() -> None:
    code = (
        "import sys; from models.devices.detection import NodeProbe; p = NodeProbe();"
        "print(p.host().total_bytes > 0, len(p.gpus()) >= 0,"
        "{'torch', 'llama_cpp', 'onnxruntime', 'ray'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True True set()"
    assert NodeProbe().host().kind == "cpu"
