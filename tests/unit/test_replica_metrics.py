"""What a replica records of its models, batches and queues."""

from __future__ import annotations

from typing import Any

import pytest

from config.catalog import ModelSpec
from deployments.metrics.replica_metrics import ReplicaMetrics
from models.batching import BatchStats
from models.continuous_batching.decode_loop import EngineStats
from models.errors import ModelLoadError
from models.types.status import ModelStatus
from tests.cached_models import Clock, FakeModel, Loader, cache, until, use
from tests.fakes import FakeMetrics

A = ("embedding", "a")


class Engine(FakeModel):
    """A generation engine as far as metrics go."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = [0.5]
        self.preemptions = 3

    @property
    def stats(self) -> EngineStats:
        return EngineStats(2, 4, 100, 1000, 1, self.preemptions)

    def take_waits(self) -> list[float]:
        waits, self.waits = self.waits, []
        return waits


class Queue(FakeModel):
    queued_tokens = 64


@pytest.fixture
def seen() -> FakeMetrics:
    return FakeMetrics()


@pytest.fixture
def metrics(seen: FakeMetrics) -> ReplicaMetrics:
    return ReplicaMetrics("embedding", seen)


async def test_loads_are_timed(seen: FakeMetrics, metrics: ReplicaMetrics) -> None:
    clock = Clock()

    def load(spec: ModelSpec) -> FakeModel:
        clock.now += 7
        return FakeModel()

    await use(cache(load, clock, events=metrics), "a")
    assert seen.values["inference_model_load_seconds", A] == [7]


async def test_failed_loads_are_counted(seen: FakeMetrics, metrics: ReplicaMetrics) -> None:
    models = cache(Loader(error=ModelLoadError("no")), events=metrics)
    with pytest.raises(ModelLoadError):
        await use(models, "a")
    with pytest.raises(ModelLoadError):  # within the back-off: no load, no failure of one
        await use(models, "a")
    assert seen.totals["inference_model_load_failures", A] == 1


@pytest.mark.parametrize("reason", ["idle", "asked", "room"])
async def test_unloads_are_counted_by_reason(
    seen: FakeMetrics, metrics: ReplicaMetrics, reason: str
) -> None:
    clock = Clock()
    options: dict[str, Any] = {"budget_bytes": 60} if reason == "room" else {"ttl_s": 10}
    models = cache(Loader(), clock, events=metrics, **options)
    await use(models, "a")
    if reason == "asked":
        models.keep("a", 0)
    elif reason == "room":
        await use(models, "b")
    clock.now += 11
    models.sweep()
    await until(lambda: seen.totals["inference_model_unloads", (*A, reason)] == 1)


def test_present_values_are_sampled_until_they_are_gone(
    seen: FakeMetrics, metrics: ReplicaMetrics
) -> None:
    metrics.sample([ModelStatus("a", "loaded", 42)], {"a": FakeModel()})
    assert seen.values["inference_model_bytes", A] == [42]
    assert seen.values["inference_models_loaded", ("embedding",)] == [1]
    metrics.sample([], {})
    assert seen.values["inference_model_bytes", A] == [0]
    assert seen.values["inference_models_loaded", ("embedding",)] == [0]


def test_a_generation_engine_is_sampled(seen: FakeMetrics, metrics: ReplicaMetrics) -> None:
    engine = Engine()
    for _ in range(2):
        metrics.sample([], {"a": engine})
    assert seen.values["inference_running_sequences", A] == [2]
    assert seen.values["inference_queued_cost", A] == [4]
    assert seen.values["inference_kv_cells_used", A] == [100]
    assert seen.values["inference_kv_cells", A] == [1000]
    assert seen.values["inference_queue_seconds", A] == [0.5]
    assert seen.totals["inference_preemptions", A] == 3
    engine.preemptions = 1  # another engine, loaded since
    metrics.sample([], {"a": engine})
    assert seen.totals["inference_preemptions", A] == 4


def test_nothing_of_a_model_that_is_gone_keeps_its_last_value(
    seen: FakeMetrics, metrics: ReplicaMetrics
) -> None:
    metrics.sample([ModelStatus("a", "loaded", 42)], {"a": Engine(), "b": Queue()})
    metrics.sample([], {"b": Queue()})
    gauges = ("model_bytes", "running_sequences", "queued_cost", "kv_cells_used", "kv_cells")
    assert [seen.values[f"inference_{name}", A] for name in gauges] == [[0]] * len(gauges)
    assert seen.values["inference_queued_cost", ("embedding", "b")] == [64]


def test_what_waits_for_an_encoder_is_sampled(seen: FakeMetrics, metrics: ReplicaMetrics) -> None:
    metrics.sample([], {"a": Queue()})
    assert seen.values["inference_queued_cost", A] == [64]


def test_a_batch_is_recorded_under_its_model(seen: FakeMetrics, metrics: ReplicaMetrics) -> None:
    metrics.batches_of("a")(BatchStats(items=3, cost=90, seconds=0.2, waited_s=0.1, padding=6))
    assert seen.values["inference_batch_items", A] == [3]
    assert seen.values["inference_batch_cost", A] == [90]
    assert seen.values["inference_batch_seconds", A] == [0.2]
    assert seen.values["inference_queue_seconds", A] == [0.1]
    assert seen.totals["inference_batch_padding_tokens", A] == 6


def test_lookups_of_the_embedding_cache_are_counted(
    seen: FakeMetrics, metrics: ReplicaMetrics
) -> None:
    metrics.looked_up("a", 5, 2)
    assert seen.totals["inference_embedding_cache_lookups", A] == 5
    assert seen.totals["inference_embedding_cache_hits", A] == 2
