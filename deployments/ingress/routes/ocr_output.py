"""The fields of an OCR request that say what it answers; Mistral's, and the formats of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from deployments.ingress.output_format import OutputFormatFields, ResponseFormat
from deployments.ingress.schemas import Body, Refused
from deployments.ingress.wire_names import wire_names
from models.errors import InvalidInputError
from models.types.generation import OutputFormat

ANNOTATION = "document_annotation_format"
FileFormat = Literal["text", "markdown", "hocr", "alto", "tsv", "pdf"]
Granularity = Literal["page", "word", "block"]
TableFormat = Literal["markdown", "html"]


class OcrOutput(Body):
    """`json` is the answer that Mistral's clients read, or the predecessor's."""

    format: FileFormat | Literal["json"] | None = None
    include_image_base64: bool | None = None
    image_limit: Annotated[int, Field(ge=0)] | None = None
    image_min_size: Annotated[int, Field(ge=0)] | None = None
    """Of both sides of a picture, in pixels."""
    table_format: TableFormat | None = None
    """Tables go to `tables` and are named in the markdown; else they are part of it."""
    extract_header: bool | None = None
    extract_footer: bool | None = None
    include_blocks: bool | None = None
    confidence_scores_granularity: Granularity | None = None
    bbox_annotation_format: Refused = None
    document_annotation_format: ResponseFormat | None = None
    document_annotation_prompt: Annotated[str, Field(max_length=32_768)] | None = None
    annotation_model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The chat model that writes the annotation; ours."""


def annotation_format(output: OcrOutput) -> OutputFormat | None:
    """What the document's annotation must be; None: there is to be none.

    Raises InvalidInputError where it is asked for in a form that cannot carry it.
    """
    wire = output.document_annotation_format
    if wire is None or wire.type == "text":
        return None
    with wire_names({"response_format.json_schema": f"{ANNOTATION}.json_schema"}):
        return OutputFormatFields(response_format=wire).output_format()


def file_format(output: OcrOutput, query: Mapping[str, Any]) -> FileFormat | None:
    """The format of the file to answer with, from the body or the query; None: JSON.

    Raises InvalidInputError for formats that do not exist.
    """
    wanted = output.format or query.get("format") or "json"
    if wanted == "json":
        return None
    for known in get_args(FileFormat):
        if wanted == known:
            return known  # type: ignore[no-any-return]
    known = ", ".join(("json", *get_args(FileFormat)))
    raise InvalidInputError(f"'format' is one of {known}.", "format")
