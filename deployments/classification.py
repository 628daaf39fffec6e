"""Classification. Bound so that the graph is complete; no engine serves this task yet."""

from __future__ import annotations

from typing import ClassVar

from config.catalog import ModelSpec, Task
from deployments.replica import ModelReplica
from models.base import Model
from models.errors import ModelLoadError


class Classification(ModelReplica[Model]):
    """Labels for texts."""

    task: ClassVar[Task] = "classification"

    def load(self, spec: ModelSpec) -> Model:
        raise ModelLoadError(f"No engine serves the classification model '{spec.id}'.")
