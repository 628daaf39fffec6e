"""The memory of one replica's models: planned before a load, entered in the node's book, given
back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from config.catalog import ModelSpec
from config.settings import TaskSettings
from deployments.memory.estimates import LoadPlan, Situation, plan_load
from deployments.memory.node_ledger import NodeLedger, Space, gigabytes
from models.devices.device import Device, DeviceProbe
from models.errors import MemoryRefusedError, ModelLoadError
from models.llama_cpp.placement import Room

CONTEXT_BYTES = 512 << 20
"""Of a GPU's memory that the driver and its libraries take for every process that uses it."""
SMALLEST_RESERVE = 1 << 30

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Share:
    """What a replica was given: a GPU or none, the part of it that it may fill, and the bytes that
    its models may hold on the host (None: what the node has)."""

    gpu: Device | None = None
    gpu_fraction: float = 0.0
    host_bytes: int | None = None

    @property
    def gpu_part(self) -> float:
        """The part of the GPU that models may fill."""
        return 0.0 if self.gpu is None else self.gpu_bytes / max(self.gpu.total_bytes, 1)

    @property
    def gpu_bytes(self) -> int:
        """Of the GPU for models, after what the driver takes for the process."""
        if self.gpu is None:
            return 0
        overhead = CONTEXT_BYTES if self.gpu.kind in ("cuda", "rocm") else 0
        return max(0, int(min(1.0, self.gpu_fraction) * self.gpu.total_bytes) - overhead)


def share_of(settings: TaskSettings, device: Device) -> Share:
    """For a replica that the scheduler gave this device."""
    if not device.is_gpu:
        return Share(host_bytes=settings.model_budget_bytes)
    return Share(device, settings.gpu_fraction(has_gpu=True), settings.model_budget_bytes)


class ReplicaMemory:
    """Satisfies `MemoryLedger`. Blocking and thread-safe as the node's book is.

    `weights` gives the local path of a model's weights. `reserve_bytes` of the host's memory are
    left alone; None is a tenth, and 1 GiB at least.
    """

    def __init__(
        self,
        weights: Callable[[ModelSpec], Path | None],
        probe: DeviceProbe,
        share: Share,
        book: NodeLedger,
        *,
        reserve_bytes: int | None = None,
    ) -> None:
        self._weights = weights
        self._probe = probe
        self._share = share
        self._book = book
        self._reserve_bytes = reserve_bytes
        self._specs: dict[str, ModelSpec] = {}
        self._plans: dict[str, LoadPlan] = {}
        self._owed: set[str] = set()
        """Models that are gone, but still in the book, which could not be written."""
        self._reserving = threading.Lock()

    def estimate(self, spec: ModelSpec) -> int:
        """Bytes that the model will take while it is loaded, 0 where nobody can tell.

        Raises ModelLoadError.
        """
        self._specs[spec.id] = spec
        with self._reserving:
            self._give_back()
        return self._plan(spec).n_bytes

    def reserve(self, model_id: str) -> None:
        """See `MemoryLedger`: what is taken is planned anew, for the room that there is now."""
        with self._reserving:
            self._give_back()
            plan = self._plan(self._specs[model_id])
            self._check_share(model_id, plan)
            self._book.take(model_id, self._amounts(plan.host, plan.gpu), self._spaces())
            self._plans[model_id] = plan

    def release(self, model_id: str) -> None:
        with self._reserving:
            self._plans.pop(model_id, None)
            self._owed.add(model_id)
            self._give_back()

    def _give_back(self) -> None:
        """What fails of it is tried again the next time; nothing of those models is in use."""
        for model_id in sorted(self._owed):
            self._book.give_back(model_id)
            self._owed.discard(model_id)

    def settle(self, model_id: str, n_bytes: int = 0) -> None:
        """The model is loaded: what only the load took is free again, if there is a book.

        `n_bytes`: what the model says that it takes. It is more than was planned where weights had
        to stay in a wider number format.
        """
        plan = self._plans.get(model_id)
        if plan is None:
            return
        host, gpu = plan.kept or (plan.host, plan.gpu)
        more = max(0, n_bytes - host - gpu)
        host, gpu = (host, gpu + more) if gpu else (host + more, gpu)
        if (host, gpu) == (plan.host, plan.gpu):
            return
        try:
            self._book.take(model_id, self._amounts(host, gpu), self._without_bounds())
        except (OSError, ModelLoadError):
            logger.exception("The book has what the load of model %s took, not the model", model_id)
            return
        self._plans[model_id] = replace(plan, host=host, gpu=gpu, kept=None)

    def options(self, model_id: str) -> Mapping[str, Any]:
        """What the engine is told of its plan; nothing for a model that has none."""
        plan = self._plans.get(model_id)
        return {} if plan is None else plan.options

    def _plan(self, spec: ModelSpec) -> LoadPlan:
        spaces = self._spaces()
        host = self._book.room("cpu", spaces["cpu"], without=spec.id)
        if self._share.host_bytes is not None:
            host = min(host, max(0, self._share.host_bytes - self._held_by_others(spec.id)[0]))
        gpu = self._share.gpu
        room = Room(host)
        if gpu is not None:
            free = self._book.room(gpu.key, spaces[gpu.key], without=spec.id)
            room = Room(host, min(free, self._left_of_share(spec.id)), self._share.gpu_bytes)
        own = gpu is not None or self._share.host_bytes is not None
        return plan_load(spec, self._weights(spec), Situation(self._probe.host(), gpu, room, own))

    def _left_of_share(self, model_id: str) -> int:
        return max(0, self._share.gpu_bytes - self._held_by_others(model_id)[1])

    def _held_by_others(self, model_id: str) -> tuple[int, int]:
        """Bytes of the host and of the GPU that the other models hold, or that their loads take."""
        plans = [plan for name, plan in list(self._plans.items()) if name != model_id]
        return sum(plan.host for plan in plans), sum(plan.gpu for plan in plans)

    def _check_share(self, model_id: str, plan: LoadPlan) -> None:
        left = self._left_of_share(model_id)
        if plan.gpu <= left:
            return
        plans = list(self._plans.items())
        others = [name for name, other in plans if other.gpu and name != model_id]
        names = ", ".join(f"'{name}'" for name in others) or "no other model"
        raise MemoryRefusedError(
            f"The model '{model_id}' needs {gigabytes(plan.gpu)} of GPU memory; {gigabytes(left)} "
            f"of its replica's {gigabytes(self._share.gpu_bytes)} are free. Held by: {names}.",
            missing=plan.gpu - left,
        )

    def _amounts(self, host: int, gpu: int) -> dict[str, int]:
        amounts = {"cpu": host}
        if self._share.gpu is not None:
            amounts[self._share.gpu.key] = gpu
        return amounts

    def _spaces(self) -> dict[str, Space]:
        host = self._probe.host()
        reserve = self._reserve_bytes
        if reserve is None:
            reserve = max(SMALLEST_RESERVE, host.total_bytes // 10)
        spaces = {"cpu": Space(max(0, host.total_bytes - reserve), host.free_bytes)}
        given = self._share.gpu
        if given is not None:
            now = next((gpu for gpu in self._probe.gpus() if gpu.key == given.key), given)
            spaces[now.key] = Space(now.total_bytes, now.free_bytes)
        return spaces

    def _without_bounds(self) -> dict[str, Space]:
        keys = self._amounts(0, 0)
        return dict.fromkeys(keys, Space(1 << 62, 1 << 62))
