"""A started process for the next replica of this node, so that a sleeping task wakes sooner."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

import psutil
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated.common_pb2 import Language
from ray.core.generated.node_manager_pb2 import PrestartWorkersRequest
from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub
from ray.core.generated.runtime_environment_pb2 import RuntimeEnvInfo

IDLE_TITLE = "ray::IDLE"
KEEP_S = 365 * 86_400
ANSWER_S = 10.0
CHECKS = 3
"""Between two looks, a second apart."""
PAUSE_CHECKS = 300
"""After a look that failed: the node's processes are busy, or this Ray is another one."""

logger = logging.getLogger("ray.serve")


class ProcessPool(Protocol):
    """The processes that a node has started in advance. Both methods block."""

    def has_spare(self) -> bool: ...

    def start_spare(self) -> None: ...


class SpareProcess:
    """Keeps one. What a replica took is replaced some seconds later, when its models have loaded:
    missing it once may mean that it was taken just now."""

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._checks_left = CHECKS
        self._missed = False
        self._failed = False
        self._looking: asyncio.Future[None] | None = None

    def check(self) -> None:
        """To be called every second, on the event loop. Nobody waits for the look at the pool."""
        self._checks_left -= 1
        if self._checks_left <= 0 and self._looking is None:
            self._checks_left = CHECKS
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._look))
            self._looking.add_done_callback(self._looked)

    def _looked(self, look: asyncio.Future[None]) -> None:
        self._looking = None
        error = None if look.cancelled() else look.exception()
        if error is not None:
            self._checks_left = PAUSE_CHECKS
            if not self._failed:  # tasks wake all the same
                logger.warning("Tasks wake more slowly: no process is kept.", exc_info=error)
        self._failed = error is not None

    def _look(self) -> None:
        missing = not self._pool.has_spare()
        if missing and self._missed:
            self._pool.start_spare()
            missing = False
        self._missed = missing


class RayletPool:
    """The idle workers of the raylet whose child this process is.

    Half of a replica's start is that of any Python process: the interpreter, `import ray`, the
    connection to the node. Ray gives an idle worker to the next actor with the same runtime
    environment, but starts none of its own accord for one with variables, as ours has. It does so
    when asked (`NodeManagerService.PrestartWorkers`, src/ray/protobuf/node_manager.proto, 2.60).
    """

    def has_spare(self) -> bool:
        wanted = ray.get_runtime_context().runtime_env.get("env_vars", {}).items()
        raylet = psutil.Process().parent()
        for process in raylet.children() if raylet else ():
            try:
                if IDLE_TITLE in process.cmdline() and wanted <= process.environ().items():
                    return True
            except psutil.Error:
                continue
        return False

    def start_spare(self) -> None:
        context = ray.get_runtime_context()
        node = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
        address = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
        request = PrestartWorkersRequest(
            language=Language.PYTHON,
            runtime_env_info=RuntimeEnvInfo(
                serialized_runtime_env=context.get_runtime_env_string()
            ),
            keep_alive_duration_secs=KEEP_S,
            num_workers=1,
        )
        with init_grpc_channel(address) as channel:
            NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=ANSWER_S)
