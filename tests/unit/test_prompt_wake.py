"""Serve's controller hears at once of a call that finds no replica."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import DeploymentHandleSource, DeploymentID
from ray.serve._private.metrics_utils import QUEUED_REQUESTS_KEY, InMemoryMetricsStore
from ray.serve._private.router import RouterMetricsManager
from ray.serve.config import AutoscalingConfig

from deployments.handles import prompt_wake
from deployments.handles.prompt_wake import PromptWake


def handle(manager: Any, *, replicas: int, lazy: bool = False) -> Any:
    chooser = None if lazy else SimpleNamespace(curr_replicas=dict.fromkeys(range(replicas)))
    inner = SimpleNamespace(request_router=chooser, _metrics_manager=manager)
    return SimpleNamespace(_router=SimpleNamespace(_asyncio_router=inner))


def manager_with_a_record_of_idleness() -> Any:
    """Serve's own, as far as it makes reports; one call waits now."""
    manager: Any = object.__new__(RouterMetricsManager)
    manager._deployment_config = SimpleNamespace(autoscaling_config=AutoscalingConfig())
    manager._deployment_id = DeploymentID("Embedding", "inference")
    manager._handle_id, manager._self_actor_id = "handle", "actor"
    manager._handle_source = DeploymentHandleSource.REPLICA
    manager.num_requests_sent_to_replicas = {}
    manager.metrics_store = InMemoryMetricsStore()
    manager.num_queued_requests = 0
    manager._add_autoscaling_metrics_point()
    manager.num_queued_requests = 1
    return manager


def reported(manager: Any) -> list[float]:
    return [point.value for point in manager._get_metrics_report().queued_requests]


def test_serve_reports_its_record_and_not_the_call_that_waits() -> None:
    """Where this fails, Serve has mended it, and the class can go."""
    assert reported(manager_with_a_record_of_idleness()) == [0]


@pytest.mark.parametrize("lazy", [False, True])
def test_the_call_that_waits_is_reported_where_no_replica_runs(lazy: bool) -> None:
    manager = manager_with_a_record_of_idleness()
    PromptWake()(handle(manager, replicas=0, lazy=lazy))
    assert reported(manager) == [1]


def test_the_record_stays_where_replicas_run() -> None:
    manager = manager_with_a_record_of_idleness()
    PromptWake()(handle(manager, replicas=1))
    assert QUEUED_REQUESTS_KEY in manager.metrics_store.data


def test_a_handle_that_was_never_called_has_no_record() -> None:
    PromptWake()(SimpleNamespace(_router=None))  # type: ignore[arg-type]


def test_another_ray_is_told_of_once_and_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(prompt_wake.logger, "warning", lambda message, **_: told.append(message))
    other: Any = SimpleNamespace(_router=SimpleNamespace())
    wake = PromptWake()
    wake(other)
    wake(other)
    assert told == ["This version of Ray Serve wakes tasks more slowly."]
    manager = manager_with_a_record_of_idleness()
    wake(handle(manager, replicas=0))
    assert reported(manager) == [0]
