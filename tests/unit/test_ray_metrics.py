"""Every metric can be made and recorded with Ray's library, which needs no cluster for that."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.metric_catalog import CATALOG, Metric
from deployments.metrics import RayMetrics


@pytest.fixture(scope="module")
def metrics() -> RayMetrics:
    return RayMetrics()


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_a_metric_takes_its_labels_and_any_number(metrics: RayMetrics, metric: Metric) -> None:
    record = {"counter": metrics.add, "gauge": metrics.set, "histogram": metrics.observe}
    labels = dict.fromkeys(metric.labels, "x")
    for value in (1, 0.5, np.int64(3), np.float32(0.5), 0):
        record[metric.kind](metric, value, **labels)  # type: ignore[arg-type]  # numpy's
    if metric.labels:
        with pytest.raises(ValueError, match="tag"):
            record[metric.kind](metric, 1)
