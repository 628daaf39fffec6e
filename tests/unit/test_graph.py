"""What the graph asks of Serve for each task. Needs Ray's package, starts nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest
from ray.serve._private.common import DeploymentID
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from config.catalog import CatalogError, Task
from config.settings import AppConfig, TaskSettings
from deployments import scaling
from graph import TASKS, _ingress_options, _options, app, gpu_share


@pytest.mark.parametrize(
    ("settings", "gpus", "share"),
    [
        ({}, 0, 0.0),
        ({}, 2, 0.2),
        ({"gpu_share": 0.5}, 1, 0.5),
        ({"num_gpus": 0}, 4, 0.0),
        ({"num_gpus": 0.3}, 0, 0.3),
        ({"num_gpus": 2}, 4, 2.0),
    ],
    ids=str,
)
def test_gpu_share(settings: dict[str, Any], gpus: float, share: float) -> None:
    assert gpu_share(TaskSettings.model_validate(settings), gpus) == share


def test_every_task_has_a_deployment() -> None:
    assert set(TASKS) == set(get_args(Task))
    assert all(replica.task == task for task, replica in TASKS.items())


def _scaling(**settings: Any) -> dict[str, Any]:
    config = AppConfig.model_validate(settings)
    scaling: dict[str, Any] = _options(config, config.load_catalog(), "embedding", 0)[
        "autoscaling_config"
    ]
    return scaling


@pytest.mark.parametrize("seconds", [1, 10, 60])
def test_replicas_stop_after_the_idle_time(seconds: float) -> None:
    scaling = _scaling(embedding={"idle_timeout_s": seconds, "max_replicas": 3})
    assert (scaling["min_replicas"], scaling["initial_replicas"]) == (0, 0)
    assert scaling["max_replicas"] == 3
    assert scaling["look_back_period_s"] + scaling["downscale_delay_s"] == seconds
    assert "downscale_to_zero_delay_s" not in scaling  # the same delay then
    assert scaling["metrics_interval_s"] * 5 <= scaling["look_back_period_s"]


def test_a_preloaded_model_keeps_a_replica_of_its_task() -> None:
    config = AppConfig(preload=("all-minilm-l6-v2",))
    catalog = config.load_catalog()
    least = {task: _options(config, catalog, task, 0)["autoscaling_config"] for task in TASKS}
    assert {task: s["min_replicas"] for task, s in least.items() if s["min_replicas"]} == {
        "embedding": 1
    }
    assert least["embedding"]["initial_replicas"] == 1


def test_replaced_replicas_finish_what_they_have_begun() -> None:
    config = AppConfig.model_validate({"deadlines": {"drain_s": 77}})
    task = _options(config, config.load_catalog(), "generation", 0)
    assert task["graceful_shutdown_timeout_s"] == 77
    assert _ingress_options(config)["graceful_shutdown_timeout_s"] == 77


def test_a_preload_of_no_model_stops_the_start() -> None:
    with pytest.raises(CatalogError, match="'preload' names 'nothing'"):
        app(AppConfig(preload=("nothing",)))


def test_serve_takes_the_policy() -> None:
    policy = AutoscalingPolicy(**_scaling()["policy"])
    assert policy.get_policy()(_context(running=1))[0] == 0


@pytest.mark.parametrize(
    ("held", "running", "requests", "replicas"),
    [
        ({}, 1, 0, 0),
        ({"r1": [0.0]}, 1, 0, 0),
        ({"r1": [0.0, 1.0]}, 1, 0, 1),
        ({"r1": [1.0, 0.0]}, 1, 0, 0),
        ({"r1": [1.0], "r2": [1.0]}, 3, 0, 2),
        ({"r1": [1.0]}, 1, 6, 3),
        ({"r1": []}, 1, 0, 0),
    ],
    ids=str,
)
def test_replicas_that_hold_a_model_for_a_client_stay(
    held: dict[str, list[float]], running: int, requests: int, replicas: int
) -> None:
    metrics = {
        scaling.HELD: {
            name: [SimpleNamespace(value=value) for value in values]
            for name, values in held.items()
        }
    }
    wanted, _ = scaling.by_requests_and_keep_alive(_context(running, requests, metrics))
    assert wanted == replicas


def _context(running: int = 0, requests: int = 0, metrics: Any = None) -> AutoscalingContext:
    config = AutoscalingConfig(min_replicas=0, max_replicas=9, target_ongoing_requests=2)
    identity = DeploymentID("Embedding", "inference")
    return AutoscalingContext(
        identity,
        "Embedding",
        "inference",
        current_num_replicas=running,
        target_num_replicas=running,
        running_replicas=[],
        total_num_requests=requests,
        total_queued_requests=0,
        aggregated_metrics={},
        raw_metrics=metrics,
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=9,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=None,
        config=config,
    )


def test_a_wrong_catalogue_stops_the_start() -> None:
    duplicate = {
        "id": "pp-ocrv6",
        "task": "ocr",
        "engine": "rapidocr",
        "source": {"kind": "builtin"},
    }
    config = AppConfig.model_validate({"models": [duplicate]})
    with pytest.raises(CatalogError, match="pp-ocrv6"):
        app(config)
