"""What a replica says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ModelState = Literal["unloaded", "failed", "downloading", "loading", "loaded"]


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What one replica says of one model."""

    model_id: str
    state: ModelState
    memory_bytes: int = 0
    load_seconds: float = 0.0
    reason: str = ""
    in_flight: int = 0
    """Requests that use it, or wait for it."""
    pinned: bool = False
    """It never leaves by itself."""
    expires_in_s: float | None = None
    """Until an idle model leaves; None while it is used or pinned."""
    done_bytes: int = 0
    """Of a download or a conversion."""
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """What one replica says of itself; `pid` is that of its process on its node."""

    task: str
    replica_id: str
    pid: int
    models: tuple[ModelStatus, ...] = ()
    node_id: str = ""
