"""The deployment graph. Run it with `serve run serve_config.yaml` or `serve run graph:app`.

One deployment per task, composed behind the ingress; the only file that binds deployments.
Operators edit serve_config.yaml, developers edit this file, nobody edits both.
"""

from typing import Any

import ray
from ray import serve
from ray.serve import Application

from config.catalog import Catalog, Task
from config.settings import AppConfig, TaskSettings
from deployments import scaling
from deployments.anomaly import Anomaly
from deployments.classification import Classification
from deployments.embedding import Embedding
from deployments.generation import Generation
from deployments.ingress.ingress import Ingress
from deployments.ocr import Ocr
from deployments.replica import ModelReplica
from deployments.rerank import Rerank

TASKS: dict[Task, type[ModelReplica[Any]]] = {
    "generation": Generation,
    "embedding": Embedding,
    "rerank": Rerank,
    "classification": Classification,
    "ocr": Ocr,
    "anomaly": Anomaly,
}

HEALTH_CHECKS = {
    # Half of the time to notice a dead or wedged replica is the period (docs/operations.md).
    "health_check_period_s": 1,
    "health_check_timeout_s": 5,
    "graceful_shutdown_wait_loop_s": 0.2,
}
LOOK_BACK_S = 10.0
METRICS_INTERVAL_S = 2.0
"""Of Serve's view of the load. The interval is deprecated in Serve 2.60, but nothing reads its
replacement, and the default is too slow for the look-back period."""
REPORTS = 5
"""Of a replica within the look-back period, before it may be stopped."""


# Serve reads the annotation of `config` at run time, so this file does not defer annotations.
def app(config: AppConfig) -> Application:
    """The application for these settings; raises CatalogError before anything is started."""
    catalog = config.load_catalog()
    gpus = ray.cluster_resources().get("GPU", 0) if ray.is_initialized() else 0
    tasks = {
        task: serve.deployment(name=replica.__name__, **_options(config, catalog, task, gpus))(
            replica
        ).bind(catalog.of_task(task), config)
        for task, replica in TASKS.items()
    }
    return serve.deployment(name="Ingress", **_ingress_options(config))(
        serve.ingress()(Ingress)
    ).bind(config, catalog, tasks)


def gpu_share(settings: TaskSettings, cluster_gpus: float) -> float:
    """The explicit value when there is one, else the share if the cluster has a GPU, else 0."""
    return settings.gpu_fraction(has_gpu=cluster_gpus > 0)


def _options(
    config: AppConfig, catalog: Catalog, task: Task, cluster_gpus: float
) -> dict[str, Any]:
    settings = config.task(task)
    preloads = any(config.preloads(spec) for spec in catalog.of_task(task))
    return {
        **HEALTH_CHECKS,
        "graceful_shutdown_timeout_s": config.deadlines.drain_s,
        "max_ongoing_requests": settings.max_ongoing_requests,
        "max_queued_requests": settings.max_queued_requests,
        "ray_actor_options": {
            "num_cpus": settings.num_cpus,
            "num_gpus": gpu_share(settings, cluster_gpus),
        },
        "autoscaling_config": _autoscaling(settings, preloads=preloads),
    }


def _autoscaling(settings: TaskSettings, *, preloads: bool) -> dict[str, Any]:
    min_replicas = max(settings.min_replicas, int(preloads))
    # A replica is idle for the look-back period before the delay begins to run.
    look_back_s = min(LOOK_BACK_S, settings.idle_timeout_s)
    return {
        "min_replicas": min_replicas,
        "initial_replicas": min_replicas,
        "max_replicas": settings.max_replicas,
        "target_ongoing_requests": settings.target_ongoing_requests,
        "upscale_delay_s": 2,
        "look_back_period_s": look_back_s,
        "metrics_interval_s": min(METRICS_INTERVAL_S, look_back_s / REPORTS),
        "downscale_delay_s": settings.idle_timeout_s - look_back_s,  # also of the last one
        "policy": {"policy_function": f"{scaling.__name__}:by_requests_and_keep_alive"},
    }


def _ingress_options(config: AppConfig) -> dict[str, Any]:
    return {
        **HEALTH_CHECKS,
        "graceful_shutdown_timeout_s": config.deadlines.drain_s,
        "num_replicas": config.ingress.num_replicas,
        "max_ongoing_requests": config.ingress.max_ongoing_requests,
        "ray_actor_options": {"num_cpus": config.ingress.num_cpus},
    }
