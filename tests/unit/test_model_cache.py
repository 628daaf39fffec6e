"""One load per model for all who wait; failures are remembered with back-off."""

from __future__ import annotations

import asyncio
import threading

import pytest

from config.catalog import ModelSpec
from deployments import model_cache
from deployments.model_cache import ModelCache
from models.errors import LoadTimeoutError, ModelLoadError, ModelNotFoundError
from tests.fakes import spec


class FakeModel:
    memory_bytes = 42

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Loader:
    def __init__(self) -> None:
        self.loads = 0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, spec: ModelSpec) -> FakeModel:
        self.loads += 1
        self.gate.wait(5)
        if self.error is not None:
            raise self.error
        return FakeModel()


@pytest.fixture
def loader() -> Loader:
    return Loader()


def cache(loader: Loader, deadline_s: float = 5.0) -> ModelCache[FakeModel]:
    specs = [spec("a", "embedding"), spec("b", "embedding")]
    return ModelCache(specs, loader, deadline_s=deadline_s)


async def test_unknown_model_is_not_found(loader: Loader) -> None:
    with pytest.raises(ModelNotFoundError):
        await cache(loader).get("nope")


async def test_a_herd_on_a_cold_model_loads_it_once(loader: Loader) -> None:
    loader.gate.clear()
    models = cache(loader)
    waiters = [asyncio.create_task(models.get("a")) for _ in range(20)]
    await asyncio.sleep(0)
    assert [s.state for s in models.status()] == ["loading"]
    loader.gate.set()
    loaded = await asyncio.gather(*waiters)
    assert loader.loads == 1
    assert len(set(map(id, loaded))) == 1
    (status,) = models.status()
    assert (status.model_id, status.state, status.memory_bytes) == ("a", "loaded", 42)


async def test_a_failed_load_answers_at_once_until_its_backoff_ends(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(model_cache.time, "monotonic", lambda: now)
    loader.error = ModelLoadError("weights missing")
    models = cache(loader)
    with pytest.raises(ModelLoadError, match="weights missing"):
        await models.get("a")
    with pytest.raises(ModelLoadError) as refused:
        await models.get("a")
    assert loader.loads == 1
    assert refused.value.retry_after == pytest.approx(model_cache.FIRST_BACKOFF_S)
    assert [(s.state, s.reason) for s in models.status()] == [("failed", "weights missing")]

    now += 1.5
    with pytest.raises(ModelLoadError):
        await models.get("a")
    assert loader.loads == 2

    now += 10
    loader.error = None
    assert await models.get("a")
    assert [s.state for s in models.status()] == ["loaded"]


async def test_one_models_failure_leaves_the_others_alone(loader: Loader) -> None:
    loader.error = ModelLoadError("broken")
    models = cache(loader)
    with pytest.raises(ModelLoadError):
        await models.get("a")
    loader.error = None
    assert await models.get("b")


async def test_the_wait_has_a_deadline_and_the_load_goes_on(loader: Loader) -> None:
    loader.gate.clear()
    models = cache(loader, deadline_s=0.01)
    with pytest.raises(LoadTimeoutError):
        await models.get("a")
    loader.gate.set()
    async with asyncio.timeout(5):
        while not models.loaded():
            await asyncio.sleep(0.01)
    assert loader.loads == 1


async def test_a_waiter_that_leaves_does_not_stop_the_load(loader: Loader) -> None:
    loader.gate.clear()
    models = cache(loader)
    leaving, staying = (asyncio.create_task(models.get("a")) for _ in range(2))
    await asyncio.sleep(0.01)
    leaving.cancel()
    loader.gate.set()
    assert await staying
    assert loader.loads == 1


async def test_close_frees_every_model_once(loader: Loader) -> None:
    models = cache(loader)
    model = await models.get("a")
    models.close()
    models.close()
    assert model.closed == 1


async def test_whatever_a_library_raises_is_a_remembered_load_error(loader: Loader) -> None:
    loader.error = RuntimeError("secret /path")  # type: ignore[assignment]
    models = cache(loader)
    for _ in range(2):
        with pytest.raises(ModelLoadError) as caught:
            await models.get("a")
        assert "secret" not in caught.value.message
    assert loader.loads == 1
    [status] = models.status()
    assert status.state == "failed"
