"""What one replica tells of its models, batches and queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from config.catalog import Task
from deployments.metrics import catalog
from deployments.metrics.catalog import Metric, Metrics
from deployments.model_cache.events import Reason
from models.base import Model
from models.batching import BatchListener, BatchStats
from models.engine_figures import BatchingGenerator, QueueingModel
from models.types.status import ModelStatus


class ReplicaMetrics:
    """See `ModelEvents`. Events are recorded as they happen, what only has a present value by
    `sample`."""

    def __init__(self, task: Task, metrics: Metrics) -> None:
        self._task = task
        self._metrics = metrics
        self._shown: dict[str, set[Metric]] = {}
        self._preemptions: dict[str, int] = {}

    def batches_of(self, model_id: str) -> BatchListener:
        """A listener for the batches of one model; called on its compute thread."""
        metrics, labels = self._metrics, {"task": self._task, "model": model_id}

        def record(batch: BatchStats) -> None:
            metrics.observe(catalog.BATCH_ITEMS, batch.items, **labels)
            metrics.observe(catalog.BATCH_COST, batch.cost, **labels)
            metrics.observe(catalog.BATCH_SECONDS, batch.seconds, **labels)
            metrics.observe(catalog.QUEUE_SECONDS, batch.waited_s, **labels)
            metrics.add(catalog.PADDING_TOKENS, batch.padding, **labels)

        return record

    def loaded(self, model_id: str, seconds: float) -> None:
        self._metrics.observe(catalog.LOAD_SECONDS, seconds, task=self._task, model=model_id)

    def load_failed(self, model_id: str) -> None:
        self._metrics.add(catalog.LOAD_FAILURES, 1, task=self._task, model=model_id)

    def unloaded(self, model_id: str, reason: Reason) -> None:
        labels = {"task": self._task, "model": model_id, "reason": reason}
        self._metrics.add(catalog.UNLOADS, 1, **labels)

    def looked_up(self, model_id: str, texts: int, hits: int) -> None:
        """In the embedding cache."""
        self._metrics.add(catalog.CACHE_LOOKUPS, texts, task=self._task, model=model_id)
        self._metrics.add(catalog.CACHE_HITS, hits, task=self._task, model=model_id)

    def sample(self, statuses: Sequence[ModelStatus], models: Mapping[str, Model]) -> None:
        """Present values, of `models` (the loaded ones) and of those that were loaded before."""
        held = {status.model_id: status.memory_bytes for status in statuses}
        self._metrics.set(catalog.MODELS_LOADED, len(models), task=self._task)
        for model_id in self._shown.keys() - models.keys():
            self._clear(model_id)
        for model_id, model in models.items():
            self._set(catalog.MODEL_BYTES, held.get(model_id, 0), model_id)
            self._sample_engine(model_id, model)
        self._metrics.flush()

    def _sample_engine(self, model_id: str, model: Model) -> None:
        if isinstance(model, QueueingModel):
            self._set(catalog.QUEUED_COST, model.queued_tokens, model_id)
        if not isinstance(model, BatchingGenerator):
            return
        for seconds in model.take_waits():
            self._metrics.observe(catalog.QUEUE_SECONDS, seconds, task=self._task, model=model_id)
        stats = model.stats
        self._set(catalog.QUEUED_COST, stats.queued_requests, model_id)
        self._set(catalog.RUNNING_SEQUENCES, stats.busy_sequences, model_id)
        self._set(catalog.KV_CELLS_USED, stats.kv_cells_used, model_id)
        self._set(catalog.KV_CELLS, stats.kv_cells, model_id)
        self._add_preemptions(model_id, stats.preemptions)

    def _add_preemptions(self, model_id: str, count: int) -> None:
        """The engine counts since its own start, which may have been after the last sample."""
        before = self._preemptions.get(model_id, 0)
        new = count - before if count >= before else count
        self._preemptions[model_id] = count
        self._metrics.add(catalog.PREEMPTIONS, new, task=self._task, model=model_id)

    def _clear(self, model_id: str) -> None:
        """The model is gone: a gauge would show its last value for ever."""
        for metric in self._shown.pop(model_id):
            self._metrics.set(metric, 0, task=self._task, model=model_id)

    def _set(self, metric: Metric, value: float, model_id: str) -> None:
        self._shown.setdefault(model_id, set()).add(metric)
        self._metrics.set(metric, value, task=self._task, model=model_id)
