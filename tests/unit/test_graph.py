"""What the graph asks of Serve for each task. Needs Ray's package, starts nothing."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from config.catalog import CatalogError, Task
from config.settings import AppConfig, TaskSettings
from graph import TASKS, _options, app, gpu_share


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


def test_tasks_scale_to_zero_after_the_idle_time() -> None:
    scaling = _options(TaskSettings(idle_timeout_s=60, max_replicas=3), 0)["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["initial_replicas"]) == (0, 0)
    assert scaling["max_replicas"] == 3
    assert scaling["look_back_period_s"] + scaling["downscale_to_zero_delay_s"] == 60


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
