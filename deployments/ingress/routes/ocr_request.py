"""What POST /v1/ocr takes: JSON in two shapes, a multipart form, or the file itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from deployments.ingress.bodies import FORM, media_type, read_bytes, read_form, read_json
from deployments.ingress.document_inputs import Reference
from deployments.ingress.document_reading import ReadOptions
from deployments.ingress.errors import RequestRefused
from deployments.ingress.routes.ocr_output import OcrOutput
from deployments.ingress.schemas import Body
from deployments.ingress.server import Server, check_count
from models.errors import InvalidInputError
from models.types.pages import StoredFile

FILE_TYPES = ("application/pdf", "image/*", "application/octet-stream")
"""Media types of a body that is the file itself; what it really is its bytes tell."""
MEDIA_TYPES = ("application/json", FORM, *FILE_TYPES)
UPLOAD_FIELDS = ("file", "image", "document", "images")


class ImageUrl(Body):
    url: str


class DocumentBody(Body):
    """A data URI, the URL of an uploaded file, its id, or, where it is allowed, any URL."""

    type: Literal["image_url", "document_url", "file"]
    image_url: str | ImageUrl | None = None
    document_url: str | None = None
    file_id: str | None = None

    @property
    def reference(self) -> Reference:
        """Raises InvalidInputError when the field of this type is missing."""
        if self.type == "file":
            if self.file_id is None:
                raise InvalidInputError("'file_id' is missing.", "document.file_id")
            return Reference(StoredFile(self.file_id), "document.file_id")
        url = self.image_url if self.type == "image_url" else self.document_url
        text = url.url if isinstance(url, ImageUrl) else url or ""
        return Reference(text, f"document.{self.type}", url=True)


Images = Annotated[list[str], Field(min_length=1, max_length=10_000, fail_fast=True)]


class Sources(Body):
    """One `document` (Mistral), or base64 `images` or a `file_id` (the predecessor)."""

    document: DocumentBody | None = None
    images: Images | None = None
    file_id: str | None = None

    @model_validator(mode="after")
    def _one_input(self) -> Sources:
        sent = [self.document, self.images, self.file_id]
        if sum(value is not None for value in sent) != 1:
            raise InvalidInputError("Send one of 'document', 'images' and 'file_id'.", "document")
        return self

    @property
    def references(self) -> list[Reference]:
        if self.document is not None:
            return [self.document.reference]
        if self.file_id is not None:
            return [Reference(StoredFile(self.file_id), "file_id")]
        return [Reference(image, f"images.{i}") for i, image in enumerate(self.images or [])]


class OcrOptions(ReadOptions, OcrOutput):
    """How to read and what to answer, whatever the document is and however it was sent."""

    return_boxes: bool = False
    stream: bool = False


class OcrBody(OcrOptions, Sources):
    """What to read, and how."""


@dataclass(frozen=True, slots=True)
class OcrCall:
    """A request, however it was sent. `as_images`: the predecessor's response is wanted."""

    options: OcrOptions
    references: list[Reference]
    as_images: bool = False


async def read_ocr_call(server: Server, request: Request) -> OcrCall:
    """The request. Raises RequestRefused, InvalidInputError or pydantic's ValidationError."""
    max_bytes = server.config.limits.max_upload_bytes
    kind = media_type(request)
    if kind == FORM:
        return await _from_form(server, request, max_bytes)
    if kind in FILE_TYPES or kind.startswith("image/"):
        options = _options(request.query_params)
        content = await read_bytes(request, max_bytes)
        return OcrCall(options, [Reference(content, "document")])
    if kind != "application/json":
        raise RequestRefused(415, f"The body must be sent as one of {', '.join(MEDIA_TYPES)}.")
    body = await read_json(request, OcrBody, max_bytes)
    check_count("images", len(body.images or ()), server.config.limits.max_images)
    return OcrCall(body, body.references, as_images=body.document is None)


async def _from_form(server: Server, request: Request, max_bytes: int) -> OcrCall:
    async with read_form(request, max_bytes, server.config.limits.max_images) as form:
        options = _options(form)
        file_id = form.get("file_id")
        if isinstance(file_id, str):
            return OcrCall(options, [Reference(StoredFile(file_id), "file_id")], as_images=True)
        references = [
            Reference(await value.read(), name)
            for name, value in form.multi_items()
            if isinstance(value, UploadFile) and name.removesuffix("[]") in UPLOAD_FIELDS
        ]
        if not references:
            raise InvalidInputError("The form has no file in a field 'file' or 'images'.", "file")
        as_images = any(reference.param.startswith("images") for reference in references)
        return OcrCall(options, references, as_images)


def _options(fields: Mapping[str, Any] | FormData) -> OcrOptions:
    """Options that came as text, which says less of their type than JSON does."""
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    values: dict[str, Any] = dict(texts)
    languages = texts.get("languages") or texts.get("language")  # the second is LiteParse's name
    if languages is not None:
        values["languages"] = languages.split(",")
    return OcrOptions.model_validate(values, strict=False)
