"""The figures of this process in Ray Serve's metrics; the only importer of Ray's."""

from __future__ import annotations

import threading
from collections import Counter as Sums

from ray.serve.metrics import Counter, Gauge, Histogram

from deployments.metrics.catalog import CATALOG, Metric

Key = tuple[Metric, tuple[tuple[str, str], ...]]


class RayMetrics:
    """See `Metrics`. Made inside a replica, whose name Serve then adds.

    A call to Ray costs some 5 us, so that only histograms are told of every value; the rest is
    gathered until `flush`. Ray takes Python's numbers only, and not those of numpy.
    """

    def __init__(self) -> None:
        self._counters = {m: Counter(m.name, m.description, m.labels) for m in _of("counter")}
        self._gauges = {m: Gauge(m.name, m.description, m.labels) for m in _of("gauge")}
        self._histograms = {
            m: Histogram(m.name, m.description, list(m.buckets), m.labels) for m in _of("histogram")
        }
        self._lock = threading.Lock()
        self._sums: Sums[Key] = Sums()
        self._values: dict[Key, float] = {}

    def add(self, metric: Metric, amount: float, **labels: str) -> None:
        if amount > 0:
            with self._lock:
                self._sums[_key(metric, labels)] += amount  # type: ignore[assignment]  # or a float

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self._histograms[metric].observe(float(value), labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        with self._lock:
            self._values[_key(metric, labels)] = value

    def flush(self) -> None:
        with self._lock:
            sums, self._sums = self._sums, Sums()
            values, self._values = self._values, {}
        for (metric, labels), amount in sums.items():
            self._counters[metric].inc(float(amount), dict(labels))
        for (metric, labels), value in values.items():
            self._gauges[metric].set(float(value), dict(labels))


def _key(metric: Metric, labels: dict[str, str]) -> Key:
    return metric, tuple(sorted(labels.items()))


def _of(kind: str) -> list[Metric]:
    return [metric for metric in CATALOG if metric.kind == kind]
