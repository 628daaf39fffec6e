"""Optical character recognition."""

from __future__ import annotations

from typing import ClassVar

from config.catalog import ModelSpec, Task
from deployments.engines import text_recognizer
from deployments.replica import BatchReplica
from models.base import TextRecognizer
from models.errors import ModelError
from models.types import OcrRequest, OcrResult


class Ocr(BatchReplica[OcrRequest, OcrResult]):
    """Images in, pages of text lines out."""

    task: ClassVar[Task] = "ocr"

    def load(self, spec: ModelSpec) -> TextRecognizer:
        return text_recognizer(spec, self._config, self._resources)

    async def recognize(
        self, model_id: str, requests: list[OcrRequest]
    ) -> list[OcrResult | ModelError]:
        return await self.answer(model_id, requests)
