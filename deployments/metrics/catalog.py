"""Every metric of this server: what is counted, in which unit, under which labels.

Ray exports each with the prefix `ray_`, and counters with the suffix `_total`; it adds the labels
`deployment`, `replica` and `application`. Labels have few values: `model` is an id of the
catalogue, `route` a template of the route table, `code` one of the table of errors; nothing that a
client wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["counter", "gauge", "histogram"]

LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOKEN_LATENCIES = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
COSTS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536)
MODEL = ("task", "model")


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric, equal to itself alone. `buckets` are the upper bounds of a histogram."""

    name: str
    kind: Kind
    description: str
    labels: tuple[str, ...] = MODEL
    buckets: tuple[float, ...] = ()

    @property
    def exported_name(self) -> str:
        """As Prometheus sees it."""
        return f"ray_{self.name}" + ("_total" if self.kind == "counter" else "")


class Metrics(Protocol):
    """Where figures go. Every call gives all labels of its metric. Thread-safe."""

    def add(self, metric: Metric, amount: float, **labels: str) -> None:
        """To a counter; an amount of 0 is nothing."""

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Into a histogram."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """A gauge."""

    def flush(self) -> None:
        """To be called about once a second: what has been gathered since leaves the process."""


# The ingress: one request of a client each.
REQUESTS = Metric(
    "inference_requests",
    "counter",
    "Requests that were answered, by route and HTTP status. 499: the client left.",
    ("task", "model", "route", "status"),
)
ERRORS = Metric(
    "inference_request_errors",
    "counter",
    "Requests that ended in an error, by the code in its body; also inside a stream.",
    ("task", "model", "code"),
)
IN_FLIGHT = Metric(
    "inference_requests_in_flight", "gauge", "Requests that have not been answered yet.", ()
)
DURATION = Metric(
    "inference_request_duration_seconds",
    "histogram",
    "From a request's first byte to the last one of its answer.",
    buckets=LATENCIES,
)
TIME_TO_FIRST_TOKEN = Metric(
    "inference_time_to_first_token_seconds",
    "histogram",
    "From a request to its first text, streamed or not.",
    buckets=LATENCIES,
)
INTER_TOKEN_LATENCY = Metric(
    "inference_inter_token_latency_seconds",
    "histogram",
    "Time per token after the first: the mean of one request and choice.",
    buckets=TOKEN_LATENCIES,
)
PROMPT_TOKENS = Metric("inference_prompt_tokens", "counter", "Tokens of inputs.")
COMPLETION_TOKENS = Metric("inference_completion_tokens", "counter", "Tokens that were generated.")
CACHED_TOKENS = Metric(
    "inference_prefix_cache_hit_tokens",
    "counter",
    "Those of the prompt tokens that the prefix cache had.",
)
WAKE_SECONDS = Metric(
    "inference_wake_seconds",
    "histogram",
    "From a request that found its task without a replica to its answer.",
    buckets=LATENCIES,
)

# The replicas: batches, models, queues.
QUEUE_SECONDS = Metric(
    "inference_queue_seconds",
    "histogram",
    "Waiting for the engine: each generation, and the longest wait of each batch.",
    buckets=LATENCIES,
)
BATCH_ITEMS = Metric(
    "inference_batch_items",
    "histogram",
    "Texts, pairs or pages of one batch of an encoder, reranker, classifier or text recogniser.",
    buckets=ITEMS,
)
BATCH_COST = Metric(
    "inference_batch_cost",
    "histogram",
    "Tokens of one batch, without padding; of OCR its pages.",
    buckets=COSTS,
)
BATCH_SECONDS = Metric(
    "inference_batch_seconds", "histogram", "Computing one batch.", buckets=LATENCIES
)
PADDING_TOKENS = Metric(
    "inference_batch_padding_tokens",
    "counter",
    "Positions computed for nothing, where an engine pads; beside the sum of inference_batch_cost.",
)
QUEUED_COST = Metric(
    "inference_queued_cost", "gauge", "What waits for the engine: tokens; for generation, requests."
)
RUNNING_SEQUENCES = Metric(
    "inference_running_sequences", "gauge", "Texts that are being generated."
)
KV_CELLS_USED = Metric("inference_kv_cells_used", "gauge", "Cells of the KV cache in use.")
KV_CELLS = Metric("inference_kv_cells", "gauge", "Cells of the KV cache.")
PREEMPTIONS = Metric(
    "inference_preemptions",
    "counter",
    "How often a text lost its KV cells to others and had to wait for them again.",
)
MODELS_LOADED = Metric("inference_models_loaded", "gauge", "Loaded models.", ("task",))
MODEL_BYTES = Metric("inference_model_bytes", "gauge", "What a loaded model holds; 0: unloaded.")
LOAD_SECONDS = Metric(
    "inference_model_load_seconds",
    "histogram",
    "Loading a model, without the start of the replica.",
    buckets=LATENCIES,
)
LOAD_FAILURES = Metric("inference_model_load_failures", "counter", "Loads that failed.")
UNLOADS = Metric(
    "inference_model_unloads",
    "counter",
    "Models that left the memory, by reason: idle, room for another model, a request.",
    ("task", "model", "reason"),
)
CACHE_LOOKUPS = Metric(
    "inference_embedding_cache_lookups", "counter", "Texts looked up in the embedding cache."
)
CACHE_HITS = Metric(
    "inference_embedding_cache_hits", "counter", "Texts that the embedding cache had."
)

CATALOG: tuple[Metric, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)
