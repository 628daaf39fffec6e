"""What POST /v1/ocr answers: Mistral's shape, or the predecessor's."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import BaseModel

from deployments.ingress.schemas import Reply
from models.types import DocumentPage, TextLine

SCREEN_DPI = 72
"""Images carry no reliable resolution; Mistral's clients expect a number."""


class Dimensions(Reply):
    dpi: int
    height: int
    width: int


class OcrLine(Reply):
    text: str
    confidence: float
    polygon: list[tuple[float, float]]


class OcrPage(Reply):
    """`lines` and `source` are ours: `text_layer` where the document's own text was used."""

    index: int
    markdown: str
    images: list[str]
    dimensions: Dimensions
    lines: list[OcrLine]
    source: Literal["ocr", "text_layer"]


class OcrUsage(Reply):
    pages_processed: int
    doc_size_bytes: int


class OcrReply(Reply):
    """Mistral's response; `lines` have text, confidence, corners in pixels of the page."""

    pages: list[OcrPage]
    model: str
    usage_info: OcrUsage


class OcrStreamEnd(Reply):
    """The last event of a stream, after those of the pages."""

    model: str
    usage_info: OcrUsage


class OcrBox(Reply):
    x1: float
    y1: float
    x2: float
    y2: float
    text: str
    confidence: float


class ImageText(Reply):
    index: int
    text: str
    confidence: float
    boxes: list[OcrBox] | None = None


class ImagesUsage(Reply):
    images_processed: int


class ImagesReply(Reply):
    """The predecessor's response."""

    object: Literal["list"] = "list"
    data: list[ImageText]
    model: str
    usage: ImagesUsage


class ImagesStreamEnd(Reply):
    model: str
    usage: ImagesUsage


class Shape(Protocol):
    """One form of answer, for one request: its pages one by one, then the rest."""

    def page(self, page: DocumentPage) -> BaseModel:
        """The page as part of a whole answer, and as an event of a stream."""

    def whole(self, pages: list[DocumentPage]) -> BaseModel: ...

    def end(self, page_count: int) -> BaseModel:
        """The event after the last page of a stream."""


class MistralShape:
    def __init__(self, model: str, size_bytes: int) -> None:
        self._model = model
        self._size_bytes = size_bytes

    def page(self, page: DocumentPage) -> OcrPage:
        read = page.page
        return OcrPage(
            index=page.index,
            markdown=read.text,
            images=[],
            dimensions=Dimensions(dpi=page.dpi or SCREEN_DPI, height=read.height, width=read.width),
            lines=[
                OcrLine(text=line.text, confidence=line.confidence, polygon=list(line.polygon))
                for line in read.lines
            ],
            source="text_layer" if page.text_layer else "ocr",
        )

    def whole(self, pages: list[DocumentPage]) -> OcrReply:
        return OcrReply(
            pages=[self.page(page) for page in pages],
            model=self._model,
            usage_info=self._usage(len(pages)),
        )

    def end(self, page_count: int) -> OcrStreamEnd:
        return OcrStreamEnd(model=self._model, usage_info=self._usage(page_count))

    def _usage(self, page_count: int) -> OcrUsage:
        return OcrUsage(pages_processed=page_count, doc_size_bytes=self._size_bytes)


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
