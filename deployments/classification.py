"""Classification: labels for texts, entities in texts, classifiers that clients fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar, TypeVar

from config.catalog import ModelSpec, Task
from deployments.engines import ClassificationModel, classifier
from deployments.replica import ModelReplica
from models.base import Classifier, ClassifierLibrary, EntityRecognizer
from models.errors import ModelError, UnsupportedTaskError
from models.types.classification import (
    ClassificationRequest,
    ClassificationResult,
    ClassifierFitRequest,
    ClassifierInfo,
    ClassifierRequest,
    EntityRequest,
    EntityResult,
    LabelScores,
)

T = TypeVar("T")


class Classification(ModelReplica[ClassificationModel]):
    """What a model can be asked depends on its kind, which its own configuration says."""

    task: ClassVar[Task] = "classification"

    def load(self, spec: ModelSpec) -> ClassificationModel:
        return classifier(spec, self._config, self.resources_of(spec))

    async def classify(
        self, model_id: str, requests: list[ClassificationRequest]
    ) -> list[ClassificationResult | ModelError]:
        """One result or error per request, in order."""
        async with self._models.use(model_id) as model:
            if not isinstance(model, Classifier):
                raise _wrong(model_id, "classify texts")
            return await asyncio.wrap_future(model.submit(requests))

    async def find_entities(
        self, model_id: str, requests: list[EntityRequest]
    ) -> list[EntityResult | ModelError]:
        """One result or error per request, in order."""
        async with self._models.use(model_id) as model:
            if not isinstance(model, EntityRecognizer):
                raise _wrong(model_id, "find entities")
            return await asyncio.wrap_future(model.submit(requests))

    async def fit(self, model_id: str, request: ClassifierFitRequest) -> ClassifierInfo:
        return await self._ask(model_id, lambda library: library.fit(request))

    async def predict(
        self, model_id: str, requests: list[ClassifierRequest]
    ) -> list[LabelScores | ModelError]:
        """One result or error per request, in order."""
        return await self._ask(model_id, lambda library: library.predict(requests))

    async def list_classifiers(self, model_id: str) -> list[ClassifierInfo]:
        return await self._ask(model_id, lambda library: library.list())

    async def get_classifier(self, model_id: str, name: str) -> ClassifierInfo:
        """Raises ModelNotFoundError."""
        return await self._ask(model_id, lambda library: library.get(name))

    async def delete_classifier(self, model_id: str, name: str) -> None:
        """Raises ModelNotFoundError."""
        await self._ask(model_id, lambda library: library.delete(name))

    async def _ask(self, model_id: str, work: Callable[[ClassifierLibrary], T]) -> T:
        """`work` in a thread."""

        def ask(model: ClassificationModel) -> T:
            if not isinstance(model, ClassifierLibrary):
                raise _wrong(model_id, "keep fitted classifiers")
            return work(model)

        return await self._models.run(model_id, ask)


def _wrong(model_id: str, purpose: str) -> UnsupportedTaskError:
    return UnsupportedTaskError(f"The model '{model_id}' does not {purpose}.", "model")
