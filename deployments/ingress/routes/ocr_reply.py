"""Forms of answers of POST /v1/ocr, and the predecessor's; Mistral's has a file of its own."""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel

from deployments.ingress.routes.ocr_schemas import (
    ImagesReply,
    ImagesStreamEnd,
    ImagesUsage,
    ImageText,
    OcrBox,
)
from models.types.pages import DocumentPage, TextLine


class Shape(Protocol):
    """One form of answer, for one request: its pages one by one, then the rest."""

    def page(self, page: DocumentPage) -> BaseModel:
        """The page as part of a whole answer, and as an event of a stream."""

    def whole(self, pages: list[DocumentPage]) -> BaseModel: ...

    def end(self, page_count: int) -> BaseModel:
        """The event after the last page of a stream."""


class ImagesShape:
    def __init__(self, model: str, with_boxes: bool) -> None:
        self._model = model
        self._with_boxes = with_boxes

    def page(self, page: DocumentPage) -> ImageText:
        lines = page.page.lines
        confidences = [line.confidence for line in lines]
        confidence = sum(confidences) / len(confidences) if confidences else 0.0
        boxes = [_box(line) for line in lines] if self._with_boxes else None
        return ImageText(index=page.index, text=page.page.text, confidence=confidence, boxes=boxes)

    def whole(self, pages: list[DocumentPage]) -> ImagesReply:
        data = [self.page(page) for page in pages]
        usage = ImagesUsage(images_processed=len(pages))
        return ImagesReply(data=data, model=self._model, usage=usage)

    def end(self, page_count: int) -> ImagesStreamEnd:
        usage = ImagesUsage(images_processed=page_count)
        return ImagesStreamEnd(model=self._model, usage=usage)


def _box(line: TextLine) -> OcrBox:
    xs, ys = zip(*line.polygon, strict=True)
    return OcrBox(
        x1=min(xs),
        y1=min(ys),
        x2=max(xs),
        y2=max(ys),
        text=line.text,
        confidence=line.confidence,
    )
