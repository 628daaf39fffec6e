"""What POST /v1/documents/extract takes and answers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import Field as Constraint
from pydantic import model_validator

from deployments.ingress.document_reading import ReadOptions
from deployments.ingress.routes.ocr_request import Sources
from deployments.ingress.schemas import ModelName, Omittable, Reply
from models.errors import InvalidInputError
from models.types.pages import DocumentTask

Prompt = Annotated[str, Constraint(max_length=32_768)]
Question = Annotated[str, Constraint(min_length=1, max_length=32_768)]
Label = Annotated[str, Constraint(min_length=1, max_length=256)]


class ExtractBody(ReadOptions, Sources):
    """`model` answers, a chat model or a document model; `ocr_model` reads the pages for it."""

    task: DocumentTask = "extraction"
    ocr_model: ModelName | None = None
    prompts: Annotated[list[Prompt], Constraint(max_length=10_000, fail_fast=True)] | None = None
    """One for each document, or one for all: questions, or what to mind."""
    questions: Annotated[list[Question], Constraint(min_length=1, max_length=32)] | None = None
    """Of vqa, instead of `prompts`: every page of every document gets each."""
    fields: dict[str, Any] | None = Constraint(None, alias="schema")
    """JSON Schema of what to extract; without one the model chooses."""
    labels: Annotated[list[Label], Constraint(max_length=64, fail_fast=True)] | None = None
    max_tokens: Annotated[int, Constraint(ge=1, le=32_768)] = 2048
    """Of one answer."""

    @model_validator(mode="after")
    def _task_has_what_it_needs(self) -> ExtractBody:
        if self.questions is not None and (self.task != "vqa" or self.prompts):
            message = "'questions' are of the task vqa, and instead of 'prompts'."
            raise InvalidInputError(message, "questions")
        if self.task == "vqa" and not self.prompts and not self.questions:
            raise InvalidInputError("Questions are sent as 'prompts' or 'questions'.", "prompts")
        return self

    def asked_of(self, document: int, documents: int) -> tuple[str, ...]:
        """The questions about one of so many documents, or what to mind, which may be "".

        Raises InvalidInputError for as many prompts as do not fit.
        """
        if self.questions is not None:
            return tuple(self.questions)
        prompts = self.prompts or [""]
        if len(prompts) not in {1, documents}:
            message = f"There are {len(prompts)} prompts for {documents} documents."
            raise InvalidInputError(message, "prompts")
        return (prompts[document % len(prompts)],)


class ExtractedField(Reply):
    """`bbox`: left, top, right, bottom in pixels of `page`; null for what is not found there.

    `confidence` is `model_confidence` times `ocr_confidence`, of those that are known.
    """

    key: str
    value: str | int | float | bool | None
    confidence: float | None
    bbox: list[float] | None
    page: int | None
    model_confidence: float | None
    ocr_confidence: float | None


class DocumentAnswer(Reply):
    """One document's fields, or those, an answer or the label of one page of it."""

    index: int
    document: int
    page: Omittable[int] = None
    confidence: float | None
    data: Omittable[Any] = None
    fields: Omittable[list[ExtractedField]] = None
    question: Omittable[str] = None
    answer: Omittable[str] = None
    bbox: Omittable[list[float]] = None
    classification: Omittable[str] = None
    classification_scores: Omittable[dict[str, float]] = None


class DocumentsUsage(Reply):
    documents_processed: int
    pages_processed: int
    prompt_tokens: int
    completion_tokens: int


class DocumentsReply(Reply):
    object: Literal["list"] = "list"
    data: list[DocumentAnswer]
    task: DocumentTask
    model: str
    usage: DocumentsUsage


def mean_confidence(values: Sequence[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
