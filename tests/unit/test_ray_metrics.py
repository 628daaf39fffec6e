"""Every metric can be made and recorded with Ray's library, which needs no cluster for that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deployments.metrics import catalog
from deployments.metrics.catalog import CATALOG, Metric
from deployments.metrics.ray_metrics import RayMetrics


@pytest.fixture(scope="module")
def metrics() -> RayMetrics:
    return RayMetrics()


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_a_metric_takes_its_labels_and_any_number(metrics: RayMetrics, metric: Metric) -> None:
    record = {"counter": metrics.add, "gauge": metrics.set, "histogram": metrics.observe}
    labels = dict.fromkeys(metric.labels, "x")
    for value in (1, 0.5, np.int64(3), np.float32(0.5), 0):
        record[metric.kind](metric, value, **labels)  # type: ignore[arg-type]  # numpy's
    metrics.flush()
    if metric.labels:
        with pytest.raises(ValueError, match="tag"):
            _recorded(metrics, record[metric.kind], metric)


def _recorded(metrics: RayMetrics, record: Callable[..., None], metric: Metric) -> None:
    record(metric, 1)
    metrics.flush()


class Told:
    """In the place of one of Ray's metrics."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, dict[str, str]]] = []

    def __call__(self, value: float, labels: dict[str, str]) -> None:
        self.calls.append((value, labels))

    inc = set = __call__


def test_counters_and_gauges_are_gathered_until_they_are_flushed() -> None:
    metrics, requests, bytes_held = RayMetrics(), Told(), Told()
    metrics._counters[catalog.PROMPT_TOKENS] = requests  # type: ignore[assignment]
    metrics._gauges[catalog.MODEL_BYTES] = bytes_held  # type: ignore[assignment]
    for amount in (3, 4):
        metrics.add(catalog.PROMPT_TOKENS, amount, task="t", model="m")
        metrics.set(catalog.MODEL_BYTES, amount, model="m", task="t")
    assert not requests.calls + bytes_held.calls
    for _ in range(2):  # the second time there is nothing new
        metrics.flush()
    labels = {"task": "t", "model": "m"}
    assert requests.calls == [(7.0, labels)]
    assert bytes_held.calls == [(4.0, labels)]
