"""The figures of this process in Ray Serve's metrics; the only importer of Ray's."""

from __future__ import annotations

from ray.serve.metrics import Counter, Gauge, Histogram

from deployments.metric_catalog import CATALOG, Metric


class RayMetrics:
    """See `Metrics`. Made inside a replica, whose name Serve then adds. A call costs some 5 us.

    Ray takes Python's numbers only, and not those of numpy.
    """

    def __init__(self) -> None:
        self._counters = {m: Counter(m.name, m.description, m.labels) for m in _of("counter")}
        self._gauges = {m: Gauge(m.name, m.description, m.labels) for m in _of("gauge")}
        self._histograms = {
            m: Histogram(m.name, m.description, list(m.buckets), m.labels) for m in _of("histogram")
        }

    def add(self, metric: Metric, amount: float, **labels: str) -> None:
        if amount > 0:
            self._counters[metric].inc(float(amount), labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self._histograms[metric].observe(float(value), labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self._gauges[metric].set(float(value), labels)


def _of(kind: str) -> list[Metric]:
    return [metric for metric in CATALOG if metric.kind == kind]
