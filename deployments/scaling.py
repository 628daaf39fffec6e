"""When Serve starts and stops the replicas of a task."""

from __future__ import annotations

from typing import Any

from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingContext

HELD = "held"
"""What a replica records: 1 while it loads or downloads a model, or a client's keep_alive outlasts
the idle time, else 0."""


def by_requests_and_keep_alive(ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Serve's own policy, but no fewer replicas than load a model or hold one for a client.

    Runs in Serve's controller at every decision; delays and bounds are applied afterwards.
    """
    wanted, state = replica_queue_length_autoscaling_policy(ctx)
    series = (ctx.raw_metrics or {}).get(HELD, {})
    holding = sum(1 for points in series.values() if points and points[-1].value)
    return max(wanted, holding), state
