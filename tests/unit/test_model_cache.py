"""One load per model for all who wait; a slow load blocks no other; failures are remembered."""

from __future__ import annotations

import asyncio
import threading

import pytest

from config.catalog import ModelSpec
from deployments.model_cache import loads as model_loads
from models.errors import LoadTimeoutError, ModelLoadError, ModelNotFoundError
from tests.cached_models import WAIT_S, Clock, Loader, cache, states, until, use
from weights.pip_download import Progress


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- loading ----------------------------------------------------------------------------------


async def test_unknown_model_is_not_found(loader: Loader) -> None:
    models = cache(loader)
    with pytest.raises(ModelNotFoundError):
        await use(models, "nope")
    with pytest.raises(ModelNotFoundError):
        models.keep("nope", 1)


async def test_a_herd_on_a_cold_model_loads_it_once(loader: Loader) -> None:
    loader.slow = ("a",)
    models = cache(loader)
    waiters = [asyncio.create_task(use(models, "a")) for _ in range(20)]
    await until(lambda: loader.loads == ["a"])
    assert (models.state("a").state, models.state("a").in_flight) == ("loading", 20)
    loader.gate.set()
    loaded = await asyncio.gather(*waiters)
    assert loader.loads == ["a"]
    assert len(set(map(id, loaded))) == 1
    assert (models.state("a").state, models.state("a").memory_bytes) == ("loaded", 42)


async def test_a_slow_load_blocks_no_other_model(loader: Loader) -> None:
    loader.slow = ("a",)
    models = cache(loader)
    waiter = asyncio.create_task(use(models, "a"))
    await until(lambda: loader.loads == ["a"])
    assert await use(models, "b")
    assert not waiter.done()
    loader.gate.set()
    assert await waiter


async def test_a_failed_load_answers_at_once_until_its_backoff_ends(
    loader: Loader, clock: Clock
) -> None:
    loader.error = ModelLoadError("weights missing")
    models = cache(loader, clock)
    with pytest.raises(ModelLoadError, match="weights missing"):
        await use(models, "a")
    with pytest.raises(ModelLoadError) as refused:
        await use(models, "a")
    assert loader.loads == ["a"]
    assert refused.value.retry_after == pytest.approx(model_loads.FIRST_BACKOFF_S)
    assert (models.state("a").state, models.state("a").reason) == ("failed", "weights missing")

    clock.now += 1.5
    with pytest.raises(ModelLoadError):
        await use(models, "a")
    assert len(loader.loads) == 2
    clock.now += 1.5
    with pytest.raises(ModelLoadError) as refused:
        await use(models, "a")
    assert len(loader.loads) == 2
    assert refused.value.retry_after == pytest.approx(2 * model_loads.FIRST_BACKOFF_S - 1.5, abs=1)

    clock.now += 10
    loader.error = None
    assert await use(models, "a")
    assert states(models) == {"a": "loaded"}


async def test_failures_without_end_keep_the_longest_backoff(loader: Loader, clock: Clock) -> None:
    loader.error = ModelLoadError("weights missing")
    models = cache(loader, clock)
    for _ in range(1100):
        clock.now += model_loads.LONGEST_BACKOFF_S
        with pytest.raises(ModelLoadError):
            await use(models, "a")
    assert len(loader.loads) == 1100
    with pytest.raises(ModelLoadError, match="weights missing") as refused:
        await use(models, "a")
    assert refused.value.retry_after == model_loads.LONGEST_BACKOFF_S


async def test_an_explicit_load_does_not_wait_for_the_backoff(loader: Loader) -> None:
    loader.error = ModelLoadError("weights missing")
    models = cache(loader)
    with pytest.raises(ModelLoadError):
        await models.load("a")
    loader.error = None
    await models.load("a")
    assert states(models) == {"a": "loaded"}


async def test_one_models_failure_leaves_the_others_alone(loader: Loader) -> None:
    loader.error = ModelLoadError("broken")
    models = cache(loader)
    with pytest.raises(ModelLoadError):
        await use(models, "a")
    loader.error = None
    assert await use(models, "b")


async def test_the_wait_has_a_deadline_and_the_load_goes_on(loader: Loader) -> None:
    loader.slow = ("a",)
    models = cache(loader, deadline_s=0.01)
    with pytest.raises(LoadTimeoutError):
        await use(models, "a")
    loader.gate.set()
    await until(lambda: bool(models.loaded()))
    assert loader.loads == ["a"]


async def test_a_waiter_that_leaves_does_not_stop_the_load(loader: Loader) -> None:
    loader.slow = ("a",)
    models = cache(loader)
    leaving, staying = (asyncio.create_task(use(models, "a")) for _ in range(2))
    await until(lambda: loader.loads == ["a"])
    leaving.cancel()
    loader.gate.set()
    assert await staying
    assert loader.loads == ["a"]
    assert models.in_flight == 0


async def test_whatever_a_library_raises_is_a_remembered_load_error(loader: Loader) -> None:
    loader.error = RuntimeError("secret /path")
    models = cache(loader)
    for _ in range(2):
        with pytest.raises(ModelLoadError) as caught:
            await use(models, "a")
        assert "secret" not in caught.value.message
    assert loader.loads == ["a"]
    assert states(models) == {"a": "failed"}


async def test_a_load_without_progress_is_given_up(loader: Loader, clock: Clock) -> None:
    loader.slow = ("a",)
    models = cache(loader, clock, deadline_s=0.01)
    with pytest.raises(LoadTimeoutError):
        await use(models, "a")
    models.sweep()
    assert models.stuck() == []
    clock.now += 1001
    models.sweep()
    assert models.stuck() == ["a"]
    assert models.state("a").reason == "Loading the model 'a' does not end."
    with pytest.raises(ModelLoadError, match="does not end"):
        await use(models, "a")
    loader.gate.set()
    await until(lambda: states(models) == {"a": "loaded"})
    assert models.stuck() == []


# --- downloads --------------------------------------------------------------------------------


async def test_a_download_shows_its_progress_and_happens_once(loader: Loader) -> None:
    fetches: list[str] = []
    report: list[Progress] = []

    def fetch(spec: ModelSpec, progress: Progress) -> None:
        fetches.append(spec.id)
        report.append(progress)
        assert loader.gate.wait(WAIT_S)

    models = cache(loader, hooks={"fetch": fetch})
    waiters = [asyncio.create_task(models.download("a")), asyncio.create_task(use(models, "a"))]
    await until(lambda: bool(report))
    report[0](10, 40)
    status = models.state("a")
    assert (status.state, status.done_bytes, status.total_bytes) == ("downloading", 10, 40)
    loader.gate.set()
    await asyncio.gather(*waiters)
    assert fetches == ["a"]
    assert states(models) == {"a": "loaded"}


async def test_a_failed_download_is_a_failed_load(loader: Loader) -> None:
    def fetch(spec: ModelSpec, progress: Progress) -> None:
        raise ModelLoadError("no network")

    models = cache(loader, hooks={"fetch": fetch})
    with pytest.raises(ModelLoadError, match="no network"):
        await use(models, "a")
    assert loader.loads == []
    assert models.state("a").reason == "no network"


async def test_a_download_without_progress_is_given_up(loader: Loader, clock: Clock) -> None:
    report: list[Progress] = []

    def fetch(spec: ModelSpec, progress: Progress) -> None:
        report.append(progress)
        assert loader.gate.wait(WAIT_S)

    models = cache(loader, clock, hooks={"fetch": fetch}, deadline_s=0.01)
    waiter = asyncio.create_task(models.download("a"))
    await until(lambda: bool(report))
    clock.now += 1001
    report[0](10, 40)
    assert models.stuck() == []
    clock.now += 1001
    assert models.stuck() == ["a"]
    with pytest.raises(LoadTimeoutError):  # whoever wants the model too does not extend its time
        await use(models, "a")
    assert models.stuck() == ["a"]
    models.sweep()
    with pytest.raises(ModelLoadError, match="does not end"):
        await use(models, "a")
    loader.gate.set()
    await waiter
    await until(lambda: states(models) == {"a": "loaded"})
    assert models.stuck() == []


async def test_a_load_after_a_long_download_has_its_own_time(loader: Loader, clock: Clock) -> None:
    fetching, fetched = threading.Event(), threading.Event()

    def fetch(spec: ModelSpec, progress: Progress) -> None:
        fetching.set()
        assert fetched.wait(WAIT_S)

    loader.slow = ("a",)
    models = cache(loader, clock, hooks={"fetch": fetch})
    waiter = asyncio.create_task(models.load("a"))
    await until(fetching.is_set)
    clock.now += 900
    fetched.set()
    await until(lambda: loader.loads == ["a"])
    clock.now += 900
    models.sweep()
    assert models.stuck() == []
    loader.gate.set()
    await waiter
