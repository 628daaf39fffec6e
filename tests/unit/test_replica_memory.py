"""What models are planned to take of a node with fake devices, and how the book admits them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from config.catalog import ModelSpec
from config.settings import TaskSettings
from deployments.engines import Resources
from deployments.memory import estimates
from deployments.memory.estimates import ONNX_BYTES, PAGE_BYTES, Situation, plan_load
from deployments.memory.node_book import NodeBook
from deployments.memory.node_ledger import Holding, NodeLedger, Space
from deployments.memory.replica_memory import CONTEXT_BYTES, ReplicaMemory, Share, share_of
from models.devices.device import Device
from models.errors import MemoryRefusedError, ModelLoadError
from models.llama_cpp.engine import LlamaCppGenerator
from models.llama_cpp.placement import Room
from tests.fake_devices import GIB, FakeProbe, cpu, gpu
from tests.tiny_gguf import CONTEXT, write_gguf
from tests.tiny_models import write_json

MIB = 2**20
ROOMY = Situation(cpu(), None, Room(64 * GIB))


def spec(engine: str, task: str = "generation", **options: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "id": options.pop("id", "model"),
            "task": task,
            "engine": engine,
            "source": {"kind": "builtin"},
            "limits": options.pop("limits", {}),
            "engine_options": options,
        }
    )


@pytest.fixture(autouse=True)
def _built_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp on a node with such devices; what is installed here may know none."""
    monkeypatch.setattr("models.llama_cpp.bindings.computes_on_gpus", lambda: True)


@pytest.fixture
def built_for_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.llama_cpp.bindings.computes_on_gpus", lambda: False)
    estimates._warn_of_build_without_gpu.cache_clear()


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """2 layers, width 64; 1,000,000 floating-point numbers in 16 bits, and 10 bytes of integers."""
    path = tmp_path / "folder"
    write_json(
        path / "config.json",
        {
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
        },
    )
    tensors = {"a": np.zeros((1000, 1000), np.float16), "b": np.zeros(10, np.uint8)}
    save_file(tensors, path / "model.safetensors")
    return path


# --- estimates ----------------------------------------------------------------------------------


def test_the_plan_of_a_gguf_file_is_what_its_engine_holds(gguf: Path) -> None:
    plan = plan_load(spec("auto", limits={"context_length": 600}), gguf, ROOMY)
    assert plan.options == {"n_ctx": 600, "kv_cells": 16384, "n_gpu_layers": 0}
    engine = LlamaCppGenerator(gguf, lambda _: None, n_threads=1, **plan.options)
    assert (engine.memory_bytes, engine.context_length) == (plan.host, 600)
    engine.close()


def test_the_context_is_what_memory_allows_and_never_less_than_is_useful(gguf: Path) -> None:
    entry = spec("llama_cpp", limits={"min_context_length": 512, "max_sequences": 1})
    full = plan_load(entry, gguf, ROOMY)
    assert full.options["n_ctx"] == CONTEXT
    tight = plan_load(entry, gguf, Situation(cpu(), None, Room(full.host - 1)))
    assert tight.options["n_ctx"] == CONTEXT - 256
    assert tight.host < full.host
    least = plan_load(entry, gguf, Situation(cpu(), None, Room(1000)))
    assert least.options["n_ctx"] == 512
    assert least.host > 1000


def test_options_of_the_operator_count(gguf: Path) -> None:
    options = plan_load(spec("llama_cpp", n_ctx=300, kv_cells=500), gguf, ROOMY).options
    assert (options["n_ctx"], options["kv_cells"]) == (300, 512)
    card = Situation(cpu(), gpu(), Room(64 * GIB, 20 * GIB))
    assert plan_load(spec("llama_cpp"), gguf, card).options["n_gpu_layers"] == 3
    assert plan_load(spec("llama_cpp", n_gpu_layers=1), gguf, card).options["n_gpu_layers"] == 1


@pytest.mark.usefixtures("built_for_cpus")
@pytest.mark.parametrize("task", ["generation", "embedding"])
def test_a_build_without_gpus_is_planned_on_the_host(
    gguf: Path, task: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "logger", logging.getLogger("estimates"))
    card = Situation(cpu(), gpu(), Room(64 * GIB, 20 * GIB), own_room=True)
    on_host = plan_load(spec("llama_cpp", task), gguf, ROOMY)
    assert on_host.options["n_gpu_layers"] == 0
    assert plan_load(spec("llama_cpp", task, n_gpu_layers=0), gguf, card).gpu == 0
    assert caplog.records == []
    for options in ({}, {"n_gpu_layers": 1}, {"n_gpu_layers": -1}):
        for situation in (card, ROOMY) if options else (card,):
            assert plan_load(spec("llama_cpp", task, **options), gguf, situation) == on_host
    [record] = caplog.records
    assert "-DGGML_CUDA=on" in record.message


@pytest.mark.parametrize(
    ("device", "width"),
    [
        (cpu(has_bf16=True), 2),
        (cpu(has_bf16=False), 4),
        (gpu(has_bf16=False), 2),
        (gpu(kind="mps"), 2),
    ],
)
def test_a_language_model_in_the_format_of_its_device(
    folder: Path, device: Device, width: int
) -> None:
    room = Room(64 * GIB, 20 * GIB if device.is_gpu else None)
    situation = Situation(cpu(), device, room) if device.is_gpu else Situation(device, None, room)
    entry = spec("transformers", limits={"max_sequences": 1})
    plan = plan_load(entry, folder, situation)
    weights = 1_000_000 * width + 10
    cell = 2 * 2 * 2 * 16 * width
    buffers = 512 * (2 * 256 + 8 * 64) * width
    total = weights + 4096 * cell + buffers
    assert plan.options == {"n_ctx": 4096, "kv_cells": 4096}
    assert (plan.host, plan.gpu) == ((weights, total) if device.is_gpu else (total, 0))


def test_a_named_format_wins(folder: Path) -> None:
    plans = [
        plan_load(spec("transformers", dtype=name, kv_cells=256), folder, ROOMY).host
        for name in ("float32", "bfloat16")
    ]
    assert plans[0] > 1.9 * plans[1]


def test_an_encoder_is_larger_while_it_is_loaded(folder: Path) -> None:
    entry = spec("torch", "embedding", max_batch_tokens=128)
    plan = plan_load(entry, folder, ROOMY)
    buffers = 128 * (2 * 256 + 8 * 64) * 2
    assert (plan.host, plan.kept) == (4_000_010, (2_000_010 + buffers, 0))
    card = plan_load(entry, folder, Situation(cpu(), gpu(), Room(GIB, GIB)))
    assert (card.gpu, card.kept) == (4_000_010, (0, 2_000_010 + buffers))
    on_host = spec("torch", "embedding", max_batch_tokens=128, device="cpu")
    assert plan_load(on_host, folder, Situation(cpu(), gpu(), Room(GIB, GIB))) == plan


def test_an_encoder_whose_transformer_has_a_folder_of_its_own(folder: Path) -> None:
    entry = spec("torch", "embedding", max_batch_tokens=128)
    plan = plan_load(entry, folder, ROOMY)
    files = list(folder.iterdir())
    (folder / "0_Transformer").mkdir()
    for file in files:
        file.rename(folder / "0_Transformer" / file.name)
    write_json(
        folder / "modules.json",
        [
            {"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"},
            {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        ],
    )
    assert plan_load(entry, folder, ROOMY) == plan


def test_onnx_stays_on_the_host(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(bytes(3000))
    (tmp_path / "model.onnx_data").write_bytes(bytes(6000))
    card = Situation(cpu(), gpu(), Room(GIB, GIB))
    plan = plan_load(spec("onnx", "embedding"), tmp_path, card)
    assert (plan.host, plan.gpu) == (9_000 + ONNX_BYTES, 0)


def test_models_without_files_of_their_own() -> None:
    assert plan_load(spec("toy"), None, ROOMY).n_bytes == 0
    assert plan_load(spec("rapidocr", "ocr"), None, ROOMY).n_bytes > 100 * MIB


def test_a_recogniser_of_pages_has_buffers_for_one(folder: Path) -> None:
    plan = plan_load(spec("transformers", "ocr"), folder, ROOMY)
    assert plan.host == 4_000_010 + PAGE_BYTES


@pytest.mark.parametrize("engine", ["documents", "transformers"])
def test_what_reads_documents_is_planned_where_it_computes(folder: Path, engine: str) -> None:
    card = Situation(cpu(), gpu(), Room(GIB, GIB))
    plan = plan_load(spec(engine, "ocr"), folder, card)
    assert (plan.gpu, plan.kept) == (4_000_010 + PAGE_BYTES, (0, 4_000_010 + PAGE_BYTES))


def test_broken_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelLoadError, match="not a whole safetensors file"):
        plan_load(spec("torch", "embedding"), tmp_path, ROOMY)


# --- shares and the book ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "device", "share"),
    [
        ({}, cpu(), (None, 0)),
        ({}, gpu(total=20 * GIB), ("cuda:0", 4 * GIB - CONTEXT_BYTES)),
        ({"num_gpus": 0.5}, gpu(total=20 * GIB), ("cuda:0", 10 * GIB - CONTEXT_BYTES)),
        ({"num_gpus": 2}, gpu(1, total=20 * GIB), ("cuda:1", 20 * GIB - CONTEXT_BYTES)),
        ({"gpu_share": 0.25}, gpu(kind="mps", total=16 * GIB), ("mps:0", 4 * GIB)),
        ({"gpu_share": 0.01}, gpu(total=8 * GIB), ("cuda:0", 0)),
    ],
)
def test_what_a_replica_was_given(
    settings: dict[str, Any], device: Device, share: tuple[str | None, int]
) -> None:
    found = share_of(TaskSettings.model_validate(settings), device)
    assert (found.gpu.key if found.gpu else None, found.gpu_bytes) == share
    assert found.gpu_part == pytest.approx(share[1] / device.total_bytes)


@pytest.fixture
def neighbour() -> Iterator[int]:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


class Replica:
    """A replica's memory on a fake node; models are tiny files."""

    def __init__(self, book: Path, path: Path, probe: FakeProbe, share: Share, pid: int) -> None:
        self.memory = ReplicaMemory(
            lambda _: path, probe, share, NodeLedger(book, pid), reserve_bytes=0
        )

    def load(self, entry: ModelSpec) -> None:
        self.memory.estimate(entry)
        self.memory.reserve(entry.id)


def holdings(book: Path) -> list[Holding]:
    with NodeBook(book, "memory", Holding).open() as entries:
        return list(entries)


def test_two_replicas_of_one_card(tmp_path: Path, gguf: Path, neighbour: int) -> None:
    """Each stays in its share, and the second never takes what the first holds."""
    card = gpu(total=1100 * MIB)
    probe, book = FakeProbe(card), tmp_path / "book"
    half = Share(card, 0.5)
    assert half.gpu_bytes == 38 * MIB
    first = Replica(book, gguf, probe, half, neighbour)
    second = Replica(book, gguf, probe, half, os.getpid())
    first.load(spec("llama_cpp", id="a"))
    options = first.memory.options("a")
    assert options["n_gpu_layers"] == 3
    assert options["n_ctx"] == CONTEXT
    second.load(spec("llama_cpp", id="b", kv_cells=600_000))  # as many as there is room for
    held = {h.model_id: h.n_bytes for h in holdings(book) if h.place == "cuda:0"}
    assert set(held) == {"a", "b"}
    assert max(held.values()) <= half.gpu_bytes
    with pytest.raises(
        MemoryRefusedError, match=r"'c' needs .* of GPU memory.*Held by: 'b'"
    ) as full:
        second.load(spec("llama_cpp", id="c"))
    assert 0 < full.value.missing < half.gpu_bytes
    second.memory.release("b")
    assert second.memory.options("b") == {}
    assert {h.model_id for h in holdings(book)} == {"a"}


@pytest.mark.usefixtures("built_for_cpus")
def test_what_stays_on_the_host_is_entered_for_it_and_not_for_the_card(
    tmp_path: Path, gguf: Path
) -> None:
    card, book = gpu(free=0), tmp_path / "book"
    replica = Replica(book, gguf, FakeProbe(card), Share(card, 0.5), os.getpid())
    replica.load(spec("llama_cpp"))
    held = {holding.place: holding.n_bytes for holding in holdings(book)}
    assert held["cpu"] > 0
    assert held.get(card.key, 0) == 0


def test_a_card_that_others_have_filled(tmp_path: Path, gguf: Path) -> None:
    card = gpu(total=2 * GIB, free=MIB // 2)
    replica = Replica(tmp_path / "book", gguf, FakeProbe(card), Share(card, 1.0), os.getpid())
    with pytest.raises(MemoryRefusedError, match=r"of the memory of cuda:0; 0\.00 GB of 2\.15 GB"):
        replica.load(spec("llama_cpp"))


def test_the_memory_of_a_node_without_gpu(tmp_path: Path, folder: Path, neighbour: int) -> None:
    probe, book = FakeProbe(host=cpu(total=7_000_000)), tmp_path / "book"
    first = Replica(book, folder, probe, Share(), neighbour)
    second = Replica(book, folder, probe, Share(), os.getpid())
    first.load(spec("torch", "embedding", id="a", max_batch_tokens=1))
    with pytest.raises(MemoryRefusedError) as refused:
        second.load(spec("torch", "embedding", id="b", max_batch_tokens=1))
    assert refused.value.message == (
        "The model 'b' needs 0.00 GB of memory; 0.00 GB of 0.01 GB are free. Held by: 'a' 0.00 GB."
    )
    first.memory.settle("a")  # what only the load took is free again
    second.load(spec("torch", "embedding", id="b", max_batch_tokens=1))


@pytest.mark.parametrize("card", [None, gpu(kind="mps", total=8_000_000)], ids=["cpu", "gpu"])
def test_a_model_that_takes_more_than_was_planned_is_entered_with_that(
    tmp_path: Path, folder: Path, card: Device | None
) -> None:
    """An encoder may disagree with itself in 16 bits, and stays in float32 then."""
    book, share = tmp_path / "book", Share() if card is None else Share(card, 0.9)
    devices = () if card is None else (card,)
    replica = Replica(book, folder, FakeProbe(*devices), share, os.getpid())
    replica.load(spec("torch", "embedding", id="a", max_batch_tokens=1))
    replica.memory.settle("a", 4_000_010)
    place = "cpu" if card is None else card.key
    assert {h.place: h.n_bytes for h in holdings(book)} == {place: 4_000_010}


def test_a_model_that_takes_what_was_planned_is_entered_with_its_buffers(
    tmp_path: Path, folder: Path
) -> None:
    book = tmp_path / "book"
    replica = Replica(book, folder, FakeProbe(), Share(), os.getpid())
    replica.load(spec("torch", "embedding", id="a", max_batch_tokens=1))
    replica.memory.settle("a", 2_000_010)
    buffers = (2 * 256 + 8 * 64) * 2
    assert [h.n_bytes for h in holdings(book)] == [2_000_010 + buffers]


def test_a_book_that_cannot_be_written_drops_no_loaded_model(tmp_path: Path, folder: Path) -> None:
    book = tmp_path / "book"
    replica = Replica(book, folder, FakeProbe(), Share(), os.getpid())
    replica.load(spec("torch", "embedding", id="a", max_batch_tokens=1))
    before = holdings(book)
    book.chmod(0o755)  # others could write into it
    replica.memory.settle("a")
    book.chmod(0o700)
    assert holdings(book) == before
    replica.memory.settle("a")
    assert holdings(book)[0].n_bytes < before[0].n_bytes


@pytest.mark.parametrize("then", ["estimate", "reserve", "release"])
def test_what_could_not_be_given_back_is_given_back_later(
    tmp_path: Path, folder: Path, then: str
) -> None:
    book = tmp_path / "book"
    replica = Replica(book, folder, FakeProbe(), Share(), os.getpid())
    first, second = (spec("torch", "embedding", id=name, max_batch_tokens=1) for name in "ab")
    replica.load(first)
    replica.memory.estimate(second)
    book.chmod(0o755)
    with pytest.raises(ModelLoadError, match="open to other users"):
        replica.memory.release("a")
    book.chmod(0o700)
    assert {h.model_id for h in holdings(book)} == {"a"}
    getattr(replica.memory, then)(second if then == "estimate" else "b")
    assert {h.model_id for h in holdings(book)} == ({"b"} if then == "reserve" else set())


def test_a_model_that_comes_again_is_not_given_back(tmp_path: Path, folder: Path) -> None:
    book = tmp_path / "book"
    replica = Replica(book, folder, FakeProbe(), Share(), os.getpid())
    entry = spec("torch", "embedding", id="a", max_batch_tokens=1)
    replica.load(entry)
    book.chmod(0o755)
    with pytest.raises(ModelLoadError):
        replica.memory.release("a")
    book.chmod(0o700)
    replica.load(entry)
    replica.memory.release("b")
    assert {h.model_id for h in holdings(book)} == {"a"}


class Meanwhile(NodeLedger):
    """Somebody else is at work while the model "a" is entered."""

    def __init__(self, book: Path, work: Callable[[], None]) -> None:
        super().__init__(book)
        self._work = work

    def take(self, model_id: str, amounts: Mapping[str, int], spaces: Mapping[str, Space]) -> None:
        if model_id == "a":
            self._work()
        super().take(model_id, amounts, spaces)


def test_two_models_at_once_stay_in_the_share(tmp_path: Path, gguf: Path) -> None:
    card = gpu(total=1100 * MIB)
    refused: list[str] = []

    def load_b() -> None:
        try:
            memory.reserve("b")
        except MemoryRefusedError as error:
            refused.append(error.message)

    other = threading.Thread(target=load_b)

    def meanwhile() -> None:
        other.start()
        other.join(0.2)  # it must wait for "a", so that this only gives it the time to go wrong

    book = Meanwhile(tmp_path / "book", meanwhile)
    memory = ReplicaMemory(lambda _: gguf, FakeProbe(card), Share(card, 0.5), book, reserve_bytes=0)
    for name in "ab":
        memory.estimate(spec("llama_cpp", id=name, kv_cells=600_000))
    memory.reserve("a")
    other.join()
    assert [message.partition(" needs")[0] for message in refused] == ["The model 'b'"]
    assert {h.model_id for h in holdings(tmp_path / "book")} == {"a"}


def test_a_model_counts_with_all_that_its_load_takes_until_it_is_there(
    tmp_path: Path, folder: Path
) -> None:
    card = gpu(kind="mps", total=70_000_000)
    replica = Replica(tmp_path / "book", folder, FakeProbe(card), Share(card, 0.1), os.getpid())
    first, second = (spec("torch", "embedding", id=name, max_batch_tokens=1) for name in "ab")
    replica.load(first)
    with pytest.raises(MemoryRefusedError, match=r"replica's 0\.01 GB are free\. Held by: 'a'"):
        replica.load(second)
    replica.memory.settle("a")
    replica.load(second)


def test_the_reserve_is_left_alone(tmp_path: Path, folder: Path) -> None:
    probe = FakeProbe(host=cpu(total=GIB + 1_000_000))
    memory = ReplicaMemory(lambda _: folder, probe, Share(), NodeLedger(tmp_path / "book"))
    entry = spec("torch", "embedding")
    memory.estimate(entry)
    with pytest.raises(MemoryRefusedError):
        memory.reserve(entry.id)


def test_a_budget_of_the_task_bounds_the_context(tmp_path: Path, gguf: Path) -> None:
    entry = spec("llama_cpp", limits={"max_sequences": 1, "min_context_length": 256})
    sizes = []
    for budget in (None, 6_000_000):
        share = Share(host_bytes=budget)
        memory = ReplicaMemory(
            lambda _: gguf, FakeProbe(), share, NodeLedger(tmp_path / "book"), reserve_bytes=0
        )
        memory.estimate(entry)
        memory.reserve(entry.id)
        sizes.append(memory.options(entry.id)["n_ctx"])
    assert sizes[0] == CONTEXT
    assert 256 <= sizes[1] <= CONTEXT


def test_models_of_one_task_share_its_budget(tmp_path: Path, gguf: Path) -> None:
    limits = {"max_sequences": 1, "min_context_length": 512}
    first, second = (spec("llama_cpp", id=name, limits=limits) for name in "ab")
    share = Share(host_bytes=2 * plan_load(first, gguf, ROOMY).host - 1)
    memory = ReplicaMemory(
        lambda _: gguf, FakeProbe(), share, NodeLedger(tmp_path / "book"), reserve_bytes=0
    )
    memory.estimate(first)
    memory.reserve("a")
    assert memory.options("a")["n_ctx"] == CONTEXT
    memory.estimate(second)
    memory.reserve("b")
    assert memory.options("b")["n_ctx"] == CONTEXT - 256
    memory.release("a")
    memory.reserve("b")
    assert memory.options("b")["n_ctx"] == CONTEXT


def test_torch_is_held_to_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[str, float]] = []
    monkeypatch.setattr(
        "models.devices.torch_formats.limit_memory", lambda *given: limits.append(given)
    )
    assert Resources(n_threads=1).torch_device() == "cpu"
    assert limits == []
    share = Share(gpu(kind="rocm", total=20 * GIB), 0.5)
    resources = Resources(n_threads=1, gpu=share.gpu, gpu_part=share.gpu_part)
    assert resources.torch_device() == "cuda"
    assert limits == [("cuda", pytest.approx(0.5 - CONTEXT_BYTES / (20 * GIB)))]
    assert (resources.gpu_layers, Resources(n_threads=1).gpu_layers) == (-1, 0)
