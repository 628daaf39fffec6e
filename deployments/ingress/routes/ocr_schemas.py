"""The responses of POST /v1/ocr: Mistral's, and the predecessor's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel

from deployments.ingress.schemas import Omittable, Reply


class Dimensions(Reply):
    """In pixels of the page that was read."""

    dpi: int
    height: int
    width: int


class OcrImage(Reply):
    """A picture on the page; `image_base64` is a data URI, null unless asked for."""

    id: str
    top_left_x: int
    top_left_y: int
    bottom_right_x: int
    bottom_right_y: int
    image_base64: str | None = None


class OcrTable(Reply):
    id: str
    content: str
    format: Literal["markdown", "html"]


class BlockScores(Reply):
    """Null where there is no text, or where no model told the block's type."""

    average_content_confidence_score: float | None
    minimum_content_confidence_score: float | None
    block_type_confidence_score: float | None


class OcrBlock(Reply):
    type: str
    top_left_x: int
    top_left_y: int
    bottom_right_x: int
    bottom_right_y: int
    content: str
    image_id: Omittable[str] = None
    table_id: Omittable[str] = None
    confidence_scores: Omittable[BlockScores] = None


class WordScore(Reply):
    """`start_index`: of its first character in the page's markdown."""

    text: str
    confidence: float
    start_index: int


class PageScores(Reply):
    average_page_confidence_score: float
    minimum_page_confidence_score: float
    word_confidence_scores: Omittable[list[WordScore]] = None


class OcrLine(Reply):
    text: str
    confidence: float
    polygon: list[tuple[float, float]]


class OcrPage(Reply):
    """`lines` and `source` are ours: `text_layer` where the document's own text was used."""

    index: int
    markdown: str
    images: list[OcrImage]
    dimensions: Dimensions
    tables: list[OcrTable]
    hyperlinks: list[str]
    header: str | None
    footer: str | None
    blocks: list[OcrBlock] | None
    confidence_scores: PageScores | None
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
    document_annotation: Annotated[str | None, Field(description="JSON text")] = None


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


class OcrAnswer(RootModel[OcrReply | ImagesReply]):
    """The second where `images` or a `file_id` were sent."""


class ImagesStreamEnd(Reply):
    model: str
    usage: ImagesUsage
