"""A call that finds no replica is heard of at once."""

from __future__ import annotations

import logging
from typing import Any

from ray.serve._private.metrics_utils import QUEUED_REQUESTS_KEY
from ray.serve.handle import DeploymentHandle

logger = logging.getLogger("ray.serve")


class PromptWake:
    """Lets Serve's controller learn of a waiting call without delay.

    Serve reports the queue at once when there is no replica, to start the first one quickly. But
    what it reports is its record of the last seconds, in which nobody waited, so that the
    controller hears of the call only with a later report, up to two seconds on
    (`RouterMetricsManager._get_metrics_report` of Ray 2.60). Without a record it reports what waits
    now. Should a later Ray not have what is looked at here, tasks wake as slowly as they would.
    """

    def __init__(self) -> None:
        self._broken = False

    def __call__(self, handle: DeploymentHandle[Any]) -> None:
        """To be called right before the handle is; on its router's event loop."""
        router = getattr(handle, "_router", None)
        if router is None or self._broken:  # a new handle has no record yet
            return
        try:
            inner = router._asyncio_router
            if inner.request_router is None or not inner.request_router.curr_replicas:
                inner._metrics_manager.metrics_store.data.pop(QUEUED_REQUESTS_KEY, None)
        except AttributeError:
            self._broken = True
            logger.warning("This version of Ray Serve wakes tasks more slowly.", exc_info=True)
