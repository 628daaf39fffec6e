"""Idle models leave: after their time, when a client says so, and when others need the memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from config.catalog import ModelSpec
from deployments.model_cache.room import ModelRoom
from deployments.model_cache.slot import PINNED
from models.errors import LoadTimeoutError, MemoryRefusedError, ModelLoadError
from tests.cached_models import WAIT_S, Clock, FakeModel, Loader, cache, states, until, use
from weights.pip_download import Progress


@dataclass
class Ledger:
    """Holds `free` bytes; refuses a model, of `size` bytes each, that does not fit."""

    free: int
    size: int
    held: dict[str, int] = field(default_factory=dict)

    def reserve(self, model_id: str) -> None:
        if sum(self.held.values()) + self.size > self.free:
            missing = sum(self.held.values()) + self.size - self.free
            raise MemoryRefusedError(f"held by {sorted(self.held)}", missing=missing)
        self.held[model_id] = self.size

    def release(self, model_id: str) -> None:
        self.held.pop(model_id, None)


@pytest.fixture(autouse=True)
def _nothing_to_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trimming the heap of a whole test run takes seconds."""
    monkeypatch.setattr("deployments.model_cache.loader.give_back", lambda: None)


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- leaving ----------------------------------------------------------------------------------


async def test_an_idle_model_leaves_after_its_time(loader: Loader, clock: Clock) -> None:
    models = cache(loader, clock, ttl_s=30)
    model = await use(models, "a")
    clock.now += 10
    models.sweep()
    assert models.state("a").expires_in_s == pytest.approx(20)
    clock.now += 21
    models.sweep()
    await until(lambda: models.empty)
    assert model.closed == 1
    assert states(models) == {}


async def test_a_model_in_use_never_leaves(loader: Loader, clock: Clock) -> None:
    models = cache(loader, clock, ttl_s=30, budget_bytes=1)
    async with models.use("a") as model:
        models.keep("a", 0)
        clock.now += 1000
        models.sweep()
        assert models.state("a").in_flight == 1
        assert models.state("a").expires_in_s is None
        await asyncio.sleep(0.01)
        assert model.closed == 0
    await until(lambda: models.empty)
    assert model.closed == 1


async def test_keep_alive_holds_until_the_model_leaves(loader: Loader, clock: Clock) -> None:
    models = cache(loader, clock, ttl_s=30)
    await use(models, "a")
    models.keep("a", 600)
    clock.now += 500
    await use(models, "a")
    clock.now += 500
    models.sweep()
    assert states(models) == {"a": "loaded"}
    models.keep("a", 0)
    await until(lambda: models.empty)
    await use(models, "a")
    clock.now += 31
    models.sweep()
    await until(lambda: models.empty)


async def test_unloading_what_is_not_there_does_not_bind_the_next_load(loader: Loader) -> None:
    models = cache(loader)
    models.keep("a", 0)
    await use(models, "a")
    assert states(models) == {"a": "loaded"}


async def test_a_pinned_model_stays_and_holds_its_replica(loader: Loader, clock: Clock) -> None:
    models = cache(loader, clock, ttl_s=30)
    await use(models, "a")
    assert not models.holds_replica(300)
    models.keep("a", PINNED)
    clock.now += 10_000
    models.sweep()
    assert (models.state("a").pinned, models.state("a").expires_in_s) == (True, None)
    assert models.holds_replica(300)
    models.keep("a", None)
    assert not models.holds_replica(300)
    clock.now += 31
    models.sweep()
    await until(lambda: models.empty)


async def test_a_long_keep_alive_holds_the_replica_for_its_time(
    loader: Loader, clock: Clock
) -> None:
    models = cache(loader, clock)
    await use(models, "a")
    models.keep("a", 200)
    assert not models.holds_replica(300)
    models.keep("a", 400)
    clock.now += 399
    assert models.holds_replica(300)
    clock.now += 2
    assert not models.holds_replica(300)


async def test_a_load_that_nobody_waits_for_holds_the_replica(loader: Loader) -> None:
    loader.slow = ("a",)
    models = cache(loader, deadline_s=0.01)
    with pytest.raises(LoadTimeoutError):
        await use(models, "a")
    assert models.in_flight == 0
    assert models.holds_replica(300)
    loader.gate.set()
    await until(lambda: states(models) == {"a": "loaded"})
    assert not models.holds_replica(300)


async def test_a_download_that_nobody_waits_for_holds_the_replica(loader: Loader) -> None:
    begun = threading.Event()

    def fetch(spec: ModelSpec, progress: Progress) -> None:
        begun.set()
        assert loader.gate.wait(WAIT_S)

    models = cache(loader, hooks={"fetch": fetch})
    client = asyncio.create_task(models.download("a"))
    await until(begun.is_set)
    client.cancel()
    assert models.holds_replica(300)
    loader.gate.set()
    await until(lambda: not models.holds_replica(300))


async def test_a_pin_loads_the_model_where_it_is_not(loader: Loader) -> None:
    models = cache(loader)
    models.keep("a", PINNED)
    models.sweep()
    await until(lambda: states(models) == {"a": "loaded"})
    assert models.state("a").pinned


async def test_preloaded_models_load_in_parallel_and_one_failure_stops_none(
    clock: Clock,
) -> None:
    gate = threading.Barrier(2)

    def load(spec: ModelSpec) -> FakeModel:
        if spec.id == "c":
            raise ModelLoadError("broken")
        gate.wait(WAIT_S)  # both have begun
        return FakeModel()

    models = cache(load, clock, preload=("a", "b", "c"), ttl_s=30)
    models.sweep()
    await until(lambda: states(models) == {"a": "loaded", "b": "loaded", "c": "failed"})
    clock.now += 10_000
    models.sweep()
    assert models.state("a").pinned
    await until(lambda: models.state("c").state == "failed")
    assert not models.holds_replica(300)
    models.keep("a", 0)
    models.sweep()
    await until(lambda: models.state("a").state == "unloaded")
    models.sweep()
    assert models.state("a").state == "unloaded"


async def test_who_wants_a_model_that_is_leaving_waits_until_it_is_gone(loader: Loader) -> None:
    released = threading.Event()

    class Slow(FakeModel):
        def close(self) -> None:
            assert released.wait(WAIT_S)

    models = cache(lambda spec: Slow())
    await use(models, "a")
    models.keep("a", 0)
    again = asyncio.create_task(use(models, "a"))
    await asyncio.sleep(0.01)
    assert not again.done()
    released.set()
    assert await again


async def test_a_store_of_fitted_models_never_leaves(loader: Loader, clock: Clock) -> None:
    """It may be fitting in the background, for another client."""
    models = cache(loader, clock)
    await use(models, "classifiers")
    models.keep("classifiers", 0)
    clock.now += 10_000
    models.sweep()
    assert states(models) == {"classifiers": "loaded"}


async def test_work_in_a_thread_keeps_its_model_after_the_caller_has_gone(loader: Loader) -> None:
    models = cache(loader)
    begun, release = threading.Event(), threading.Event()

    def work(model: FakeModel) -> int:
        begun.set()
        assert release.wait(WAIT_S)
        return model.closed

    running = asyncio.create_task(models.run("a", work))
    await until(begun.is_set)
    models.keep("a", 0)
    running.cancel()
    await asyncio.sleep(0.01)
    assert models.in_flight == 1
    assert not models.empty
    release.set()
    await until(lambda: models.empty)


async def test_close_frees_every_model_once(loader: Loader) -> None:
    models = cache(loader)
    model = await use(models, "a")
    models.close()
    models.close()
    assert model.closed == 1


# --- memory -----------------------------------------------------------------------------------


def sized(n_bytes: int) -> Callable[[ModelSpec], FakeModel]:
    return lambda spec: FakeModel(n_bytes)


async def test_the_least_recently_used_leaves_before_a_load(clock: Clock) -> None:
    models = cache(sized(40), clock, budget_bytes=100, hooks={"estimate": lambda spec: 40})
    for name in "aba":
        clock.now += 1
        await use(models, name)
    clock.now += 1
    await use(models, "c")
    assert states(models) == {"a": "loaded", "c": "loaded"}


async def test_without_an_estimate_the_others_leave_afterwards(clock: Clock) -> None:
    models = cache(sized(40), clock, budget_bytes=50)
    await use(models, "a")
    clock.now += 1
    await use(models, "b")
    models.sweep()
    await until(lambda: states(models) == {"b": "loaded"})


async def test_a_budget_that_is_in_use_refuses_and_names_who_has_it(clock: Clock) -> None:
    models = cache(sized(40), clock, budget_bytes=70, hooks={"estimate": lambda spec: 40})
    async with models.use("a"):
        with pytest.raises(MemoryRefusedError, match=r"needs 40 bytes, 10 more.*in use: a"):
            await use(models, "b")
        with pytest.raises(MemoryRefusedError):
            await use(models, "b")
    clock.now += 2
    assert await use(models, "b")


async def test_the_ledger_is_asked_before_a_load_and_told_of_every_end(loader: Loader) -> None:
    ledger = Ledger(100, 60)
    models = cache(loader, hooks={"ledger": ledger, "estimate": lambda spec: 60})
    await use(models, "a")
    assert ledger.held == {"a": 60}
    await use(models, "b")  # refused at first: the idle one leaves
    assert ledger.held == {"b": 60}
    loader.error = ModelLoadError("broken")
    models.keep("b", 0)
    await until(lambda: not ledger.held)
    with pytest.raises(ModelLoadError, match="broken"):
        await use(models, "c")
    assert ledger.held == {}


async def test_nobody_leaves_for_a_model_that_still_would_not_fit() -> None:
    ledger = Ledger(100, 40, {"someone else": 60})
    models = cache(sized(40), hooks={"ledger": ledger, "estimate": lambda spec: 40})
    await use(models, "a")
    ledger.size = 60
    with pytest.raises(MemoryRefusedError, match="someone else"):
        await use(models, "b")
    assert states(models) == {"a": "loaded", "b": "failed"}
    assert models.loaded()["a"].closed == 0


async def test_who_finds_the_room_being_freed_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    closing, seen = threading.Event(), threading.Event()

    class Slow(FakeModel):
        def close(self) -> None:
            closing.set()
            assert seen.wait(WAIT_S)

    def leaving(room: ModelRoom) -> list[asyncio.Task[None]]:
        tasks = found(room)
        if tasks:
            seen.set()
        return tasks

    found = ModelRoom.leaving
    monkeypatch.setattr(ModelRoom, "leaving", leaving)
    ledger = Ledger(120, 60)
    models = cache(lambda spec: Slow(120), hooks={"ledger": ledger, "estimate": lambda spec: 60})
    await use(models, "a")
    ledger.held["a"] = 120
    first = asyncio.create_task(use(models, "b"))
    await until(closing.is_set)
    assert await use(models, "c")
    assert await first
    assert ledger.held == {"b": 60, "c": 60}


async def test_what_fails_of_freeing_a_model_fails_no_later_load(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("No space left on device")

    ledger = Ledger(100, 60)
    models = cache(loader, hooks={"ledger": ledger, "estimate": lambda spec: 60})
    await use(models, "a")
    monkeypatch.setattr("deployments.model_cache.loader.give_back", fails)
    monkeypatch.setattr(ledger, "release", fails)
    models.keep("a", 0)
    ledger.held.clear()
    assert await use(models, "a")
    assert loader.loads == ["a", "a"]


async def test_a_ledger_that_still_refuses_is_the_answer(loader: Loader) -> None:
    ledger = Ledger(100, 60, {"someone else": 80})
    models = cache(loader, hooks={"ledger": ledger, "estimate": lambda spec: 60})
    with pytest.raises(MemoryRefusedError, match="someone else"):
        await use(models, "a")
    assert loader.loads == []
