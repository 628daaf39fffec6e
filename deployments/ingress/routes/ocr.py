"""POST /v1/ocr: Mistral's shape, and the predecessor's when `images` are sent."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import Field, model_validator
from starlette.requests import Request

from deployments.ingress.schemas import Body, ModelName, Reply
from deployments.ingress.server import Endpoint, Server, check_count
from models.errors import InvalidInputError
from models.types import OcrRequest, Page, TextLine


class ImageUrl(Body):
    url: str


class DocumentBody(Body):
    """`image_url` with a data URI; remote URLs are refused."""

    type: Literal["image_url", "document_url"]
    image_url: str | ImageUrl | None = None
    document_url: str | None = None

    @property
    def data_uri(self) -> str:
        url = self.image_url if self.type == "image_url" else self.document_url
        return url.url if isinstance(url, ImageUrl) else url or ""


Images = Annotated[list[str], Field(min_length=1, max_length=10_000, fail_fast=True)]


class OcrBody(Body):
    """One `document` (Mistral), or a list of base64 `images` (the predecessor)."""

    model: ModelName | None = None
    document: DocumentBody | None = None
    images: Images | None = None
    languages: Annotated[list[str], Field(max_length=64, fail_fast=True)] | None = None
    return_boxes: bool = False

    @model_validator(mode="after")
    def _one_input(self) -> OcrBody:
        if (self.document is None) == (self.images is None):
            raise ValueError("send either 'document' or 'images'")
        return self


class Dimensions(Reply):
    dpi: int
    height: int
    width: int


class OcrLine(Reply):
    text: str
    confidence: float
    polygon: list[tuple[float, float]]


class OcrPage(Reply):
    index: int
    markdown: str
    images: list[str]
    dimensions: Dimensions
    lines: list[OcrLine]


class OcrUsage(Reply):
    pages_processed: int
    doc_size_bytes: int


class OcrReply(Reply):
    """Mistral's response; `lines` is ours: text, confidence, corners in pixels of the image."""

    pages: list[OcrPage]
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


SCREEN_DPI = 72
"""Images carry no reliable resolution; Mistral's clients expect a number."""


async def recognize_text(server: Server, request: Request, body: OcrBody) -> OcrReply | ImagesReply:
    """Read the text of images, with positions."""
    del request
    spec = server.model(body.model, "ocr")
    images = _images(server, body)
    result = await server.clients.ocr.submit(spec.id, OcrRequest(images))
    if body.images is not None:
        data = [_image_text(i, page, body.return_boxes) for i, page in enumerate(result.pages)]
        return ImagesReply(
            data=data, model=spec.id, usage=ImagesUsage(images_processed=len(images))
        )
    return OcrReply(
        pages=[_page(index, page) for index, page in enumerate(result.pages)],
        model=spec.id,
        usage_info=OcrUsage(
            pages_processed=len(result.pages), doc_size_bytes=sum(map(len, images))
        ),
    )


def _images(server: Server, body: OcrBody) -> tuple[bytes, ...]:
    if body.document is not None:
        uri = body.document.data_uri
        if not uri.startswith("data:"):
            raise InvalidInputError("Only data: URIs are accepted.", "document")
        return (_decode(uri, "document"),)
    images = body.images or []
    check_count("images", len(images), server.config.limits.max_images)
    return tuple(_decode(image, f"images.{index}") for index, image in enumerate(images))


def _decode(text: str, param: str) -> bytes:
    """The bytes of a base64 text or a base64 data URI."""
    encoded = text
    if text.startswith("data:"):
        head, comma, encoded = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidInputError("A data URI must be base64.", param)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInputError("The image is not valid base64.", param) from None


def _page(index: int, page: Page) -> OcrPage:
    return OcrPage(
        index=index,
        markdown=page.text,
        images=[],
        dimensions=Dimensions(dpi=SCREEN_DPI, height=page.height, width=page.width),
        lines=[
            OcrLine(text=line.text, confidence=line.confidence, polygon=list(line.polygon))
            for line in page.lines
        ],
    )


def _image_text(index: int, page: Page, with_boxes: bool) -> ImageText:
    confidences = [line.confidence for line in page.lines]
    confidence = sum(confidences) / len(confidences) if confidences else 0.0
    boxes = [_box(line) for line in page.lines] if with_boxes else None
    return ImageText(index=index, text=page.text, confidence=confidence, boxes=boxes)


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


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/ocr",
        recognize_text,
        "OCR",
        body=OcrBody,
        response=OcrReply,
        uploads=True,
    ),
)
