"""What a replica's health checks do to its models, and when they ask Serve for another replica."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from config.settings import AppConfig
from deployments.engines import Resources
from deployments.memory.watch import MemoryWatch
from deployments.model_cache.slot import PINNED
from deployments.rerank import Rerank
from deployments.scaling import HELD
from models.devices.device import Device
from models.errors import EngineDeadError
from models.types.status import ModelStatus
from tests.cached_models import WAIT_S, Clock, FakeModel, Loader, cache, states, until, use
from tests.fake_devices import GIB, cpu, gpu


class Memory:
    resident = 100 << 20

    def __call__(self) -> int:
        return self.resident


@pytest.fixture(autouse=True)
def _nothing_to_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trimming the heap of a whole test run takes seconds."""
    monkeypatch.setattr("deployments.model_cache.loader.give_back", lambda: None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def replica(loader: Loader, clock: Clock, memory: Memory) -> Any:
    """As the constructor makes it, but for what it asks Ray."""
    made: Any = Rerank.__new__(Rerank)
    made._config = AppConfig()
    made._models = cache(loader, clock, ttl_s=30)
    made._memory = MemoryWatch(64 << 20, memory)
    made._metrics = SimpleNamespace(sample=lambda statuses, models: None)
    made._watchdog = SimpleNamespace(start=lambda: None)
    return made


async def test_the_checks_are_the_pace_at_which_idle_models_leave(
    replica: Any, clock: Clock
) -> None:
    await use(replica._models, "a")
    await replica.check_health()
    assert states(replica._models) == {"a": "loaded"}
    clock.now += 31
    await replica.check_health()
    await until(lambda: replica._models.empty)


async def test_memory_that_stays_without_models_is_a_reason_to_be_replaced(
    replica: Any, memory: Memory
) -> None:
    memory.resident += 65 << 20
    async with replica._models.use("a"):
        await replica.check_health()  # in use
    await replica.check_health()  # still loaded
    replica._models.keep("a", 0)
    await until(lambda: replica._models.empty)
    with pytest.raises(EngineDeadError, match="65 MiB more"):
        await replica.check_health()
    memory.resident -= 10 << 20
    await replica.check_health()


async def test_a_load_that_never_ends_is_a_reason_sooner_while_nothing_else_is_in_flight(
    replica: Any, loader: Loader, clock: Clock
) -> None:
    loader.slow = ("a",)
    waiter = asyncio.create_task(use(replica._models, "a"))
    await until(lambda: loader.loads == ["a"])
    waiter.cancel()
    await asyncio.wait([waiter])
    await replica.check_health()
    clock.now += 1001
    async with replica._models.use("b"):
        await replica.check_health()
    with pytest.raises(EngineDeadError, match="do not end: a"):
        await replica.check_health()
    clock.now += 1000
    async with replica._models.use("b"):
        with pytest.raises(EngineDeadError, match="do not end: a"):
            await replica.check_health()
    loader.gate.set()
    await until(lambda: not replica._models.stuck())
    await replica.check_health()


def test_a_loaded_model_is_entered_with_what_it_says_that_it_takes(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[Any] = []
    replica._reserved = SimpleNamespace(settle=lambda *given: entered.append(given))
    replica._resources = Resources(n_threads=1)
    replica._threads = lambda: 1
    monkeypatch.setattr(Rerank, "load", lambda self, spec: FakeModel(43))
    monkeypatch.setattr("deployments.replica.in_background", lambda work, niceness: work())
    replica._load(SimpleNamespace(id="a"))
    assert entered == [("a", 43)]


async def test_an_engine_that_has_ended_is_a_reason_at_once(replica: Any) -> None:
    async with replica._models.use("a") as model:
        model.alive = False
        with pytest.raises(EngineDeadError, match="'a' has stopped"):
            await replica.check_health()


async def test_serve_is_told_of_models_that_outlast_the_idle_time(replica: Any) -> None:
    await use(replica._models, "a")
    assert await replica.record_autoscaling_stats() == {HELD: 0.0}
    await replica.keep_model("a", PINNED)
    assert await replica.record_autoscaling_stats() == {HELD: 1.0}


async def test_a_load_shows_its_steps_and_goes_on_without_its_viewer(
    replica: Any, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.replica.PROGRESS_S", 0.01)
    loader.slow = ("a", "b")
    steps: list[ModelStatus] = []
    async for status in replica.load_model("a"):
        steps.append(status)
        loader.gate.set()
    assert [step.state for step in (steps[0], steps[-1])] == ["loading", "loaded"]

    loader.gate.clear()
    viewer = replica.load_model("b")
    assert (await anext(viewer)).state == "loading"
    await viewer.aclose()
    loader.gate.set()
    await until(lambda: states(replica._models).get("b") == "loaded")


async def test_a_download_ends_when_the_weights_are_there(loader: Loader, clock: Clock) -> None:
    may_end = threading.Event()
    replica: Any = Rerank.__new__(Rerank)
    replica._models = cache(
        lambda spec: FakeModel(),
        clock,
        hooks={"fetch": lambda spec, progress: may_end.wait(WAIT_S)},
    )
    asyncio.get_running_loop().call_later(0.01, may_end.set)
    assert [status async for status in replica.download_model("a")] == []
    assert replica._models.empty


@pytest.mark.parametrize(("device", "expected"), [(cpu(), GIB), (gpu(), 3 * GIB)])
def test_a_replica_tolerates_what_the_libraries_of_its_device_hold(
    monkeypatch: pytest.MonkeyPatch, device: Device, expected: int
) -> None:
    watched: list[int] = []
    monkeypatch.setattr("deployments.replica.ray.get_gpu_ids", list)
    monkeypatch.setattr("deployments.replica.granted_device", lambda probe, ids: device)
    monkeypatch.setattr("deployments.replica.RayMetrics", lambda: None)
    monkeypatch.setattr("deployments.replica.ReplicaMetrics", lambda task, metrics: None)
    monkeypatch.setattr("deployments.replica.MemoryWatch", watched.append)
    Rerank([], AppConfig())
    assert watched == [expected]
