"""Classification: labels for texts, entities in texts, classifiers that clients fit."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from config.catalog import ModelSpec, Task
from deployments.engines import ClassificationModel, classifier
from deployments.replica import ModelReplica
from models.base import Classifier, ClassifierLibrary, EntityRecognizer
from models.errors import ModelError, UnsupportedTaskError
from models.types import (
    ClassificationRequest,
    ClassificationResult,
    ClassifierFitRequest,
    ClassifierInfo,
    ClassifierRequest,
    EntityRequest,
    EntityResult,
    LabelScores,
)


class Classification(ModelReplica[ClassificationModel]):
    """What a model can be asked depends on its kind, which its own configuration says."""

    task: ClassVar[Task] = "classification"

    def load(self, spec: ModelSpec) -> ClassificationModel:
        return classifier(spec, self._config, self._resources)

    async def classify(
        self, model_id: str, requests: list[ClassificationRequest]
    ) -> list[ClassificationResult | ModelError]:
        """One result or error per request, in order."""
        model = await self._models.get(model_id)
        if not isinstance(model, Classifier):
            raise _wrong(model_id, "classify texts")
        return await asyncio.wrap_future(model.submit(requests))

    async def find_entities(
        self, model_id: str, requests: list[EntityRequest]
    ) -> list[EntityResult | ModelError]:
        """One result or error per request, in order."""
        model = await self._models.get(model_id)
        if not isinstance(model, EntityRecognizer):
            raise _wrong(model_id, "find entities")
        return await asyncio.wrap_future(model.submit(requests))

    async def fit(self, model_id: str, request: ClassifierFitRequest) -> ClassifierInfo:
        library = await self._library(model_id)
        return await asyncio.to_thread(library.fit, request)

    async def predict(
        self, model_id: str, requests: list[ClassifierRequest]
    ) -> list[LabelScores | ModelError]:
        """One result or error per request, in order."""
        library = await self._library(model_id)
        return await asyncio.to_thread(library.predict, requests)

    async def list_classifiers(self, model_id: str) -> list[ClassifierInfo]:
        library = await self._library(model_id)
        return await asyncio.to_thread(library.list)

    async def get_classifier(self, model_id: str, name: str) -> ClassifierInfo:
        """Raises ModelNotFoundError."""
        library = await self._library(model_id)
        return await asyncio.to_thread(library.get, name)

    async def delete_classifier(self, model_id: str, name: str) -> None:
        """Raises ModelNotFoundError."""
        library = await self._library(model_id)
        await asyncio.to_thread(library.delete, name)

    async def _library(self, model_id: str) -> ClassifierLibrary:
        model = await self._models.get(model_id)
        if not isinstance(model, ClassifierLibrary):
            raise _wrong(model_id, "keep fitted classifiers")
        return model


def _wrong(model_id: str, purpose: str) -> UnsupportedTaskError:
    return UnsupportedTaskError(f"The model '{model_id}' does not {purpose}.", "model")
