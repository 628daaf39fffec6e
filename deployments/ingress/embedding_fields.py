"""How the embedding shapes name a purpose and a cut, and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from deployments.ingress.schemas import HARD_LIST_LIMIT, LenientBody, Refused
from deployments.ingress.server import Server, check_count, check_texts
from models.errors import InvalidInputError
from models.types.texts import Purpose, TruncationSide

InputType = Literal[
    "query", "search_query", "document", "passage", "search_document",
    "classification", "clustering", "similarity",
]  # fmt: skip
"""What `input_type` may say: Cohere's names, and those of others for the same."""
JinaTask = Literal[
    "retrieval.query", "retrieval.passage", "text-matching", "classification", "separation",
    "clustering",
]  # fmt: skip
PURPOSES: dict[InputType | JinaTask, Purpose] = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "retrieval.passage": "document",
    "classification": "classification",
    "clustering": "clustering",
    "separation": "clustering",
    "similarity": "similarity",
    "text-matching": "similarity",
}
Truncate = bool | Literal["left", "right", "Left", "Right", "NONE", "START", "END"]
CUTS: dict[Truncate, tuple[bool, TruncationSide | None]] = {
    False: (False, None),
    True: (True, None),
    "NONE": (False, None),
    "START": (True, "left"),
    "END": (True, "right"),
    "left": (True, "left"),
    "right": (True, "right"),
    "Left": (True, "left"),
    "Right": (True, "right"),
}
"""Whether texts are cut, and at which side; None: the side of the model's tokenizer."""

PromptName = Annotated[str, Field(min_length=1, max_length=128)]
Dimensions = Annotated[int, Field(ge=1, le=65_536)]
TokenLimit = Annotated[int, Field(ge=1, le=1_000_000)]
Inputs = tuple[str | tuple[int, ...], ...]


class TextItem(LenientBody):
    """Jina's way to write a text."""

    text: str
    image: Refused = None


TextItems = Annotated[
    list[str | TextItem], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)
]


def inputs_of(wire: str | Sequence[int] | Sequence[str | TextItem | list[int]]) -> Inputs:
    """A text, token ids, or a list of either, as a list."""
    if isinstance(wire, str):
        return (wire,)
    ids = tuple(entry for entry in wire if isinstance(entry, int))
    return (ids,) if ids else tuple(_input(e) for e in wire if not isinstance(e, int))


def _input(entry: str | TextItem | list[int]) -> str | tuple[int, ...]:
    if isinstance(entry, TextItem):
        return entry.text
    return entry if isinstance(entry, str) else tuple(entry)


def check_inputs(server: Server, param: str, inputs: Sequence[str | Sequence[int]]) -> None:
    """Raises InvalidInputError for too many or too long inputs, and for empty ones."""
    check_count(param, len(inputs), server.config.limits.max_inputs)
    check_texts(server, param, inputs)
    if not all(inputs):
        raise InvalidInputError("An input must not be empty.", param)
