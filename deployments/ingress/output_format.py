"""What a completion must be: OpenAI's `response_format` and vLLM's `structured_outputs`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from deployments.ingress.schemas import FunctionName, LenientBody, schema_text
from models.errors import InvalidInputError
from models.types.generation import OutputFormat

MAX_PATTERN_CHARS = 8192
Schema = dict[str, Any]
Pattern = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN_CHARS)]
Choices = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=4096)]],
    Field(min_length=1, max_length=1024, fail_fast=True),
]
Refused = Any | None


class JsonSchemaFormat(LenientBody):
    """The schema is always enforced, also where `strict` is false."""

    name: FunctionName
    description: Annotated[str, Field(max_length=65_536)] | None = None
    definition: Schema | None = Field(default=None, alias="schema")
    strict: bool = False


class ResponseFormat(LenientBody):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(LenientBody):
    """vLLM's extra; one of its members."""

    definition: str | Schema | None = Field(default=None, alias="json")
    regex: Pattern | None = None
    choice: Choices | None = None
    json_object: bool = False
    grammar: Refused = None
    structural_tag: Refused = None


class OutputFormatFields(LenientBody):
    """The fields of a request that say what its completion must be."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | Schema | None = None
    guided_regex: Pattern | None = None
    guided_choice: Choices | None = None
    guided_grammar: Refused = None
    grammar: Refused = None

    def output_format(self) -> OutputFormat | None:
        """Raises InvalidInputError for what is not served, and for two formats at once."""
        self._refuse_grammars()
        formats = list(self._formats())
        if len(formats) > 1:
            raise InvalidInputError("A completion can have one format only.", formats[1][0])
        return formats[0][1] if formats else None

    def _refuse_grammars(self) -> None:
        extra = self.structured_outputs or StructuredOutputs()
        refused = {
            "grammar": self.grammar,
            "guided_grammar": self.guided_grammar,
            "structured_outputs.grammar": extra.grammar,
            "structured_outputs.structural_tag": extra.structural_tag,
        }
        for param, value in refused.items():
            if value is not None:
                raise InvalidInputError(f"'{param}' is not supported by this server.", param)

    def _formats(self) -> Iterator[tuple[str, OutputFormat]]:
        """Every format that is asked for, with the field that asks."""
        if self.response_format is not None and self.response_format.type != "text":
            yield "response_format", _response_format(self.response_format)
        if self.structured_outputs is not None:
            extra, param = self.structured_outputs, "structured_outputs."
            if extra.json_object:
                yield param + "json_object", OutputFormat("json_object")
            names = (param + "json", param + "regex", param + "choice")
            yield from _formats(names, extra.definition, extra.regex, extra.choice)
        names = ("guided_json", "guided_regex", "guided_choice")
        yield from _formats(names, self.guided_json, self.guided_regex, self.guided_choice)


def _response_format(wire: ResponseFormat) -> OutputFormat:
    if wire.type == "json_object":
        return OutputFormat("json_object")
    param = "response_format.json_schema"
    if wire.json_schema is None:
        raise InvalidInputError("The format 'json_schema' needs a schema.", param)
    if wire.json_schema.definition is None:
        raise InvalidInputError("The format 'json_schema' needs a schema.", f"{param}.schema")
    text = schema_text(wire.json_schema.definition, f"{param}.schema")
    return OutputFormat("json_schema", text)


def _formats(
    names: tuple[str, str, str],
    definition: str | Schema | None,
    regex: str | None,
    choice: list[str] | None,
) -> Iterator[tuple[str, OutputFormat]]:
    if definition is not None:
        schema = _parsed(definition, names[0]) if isinstance(definition, str) else definition
        yield names[0], OutputFormat("json_schema", schema_text(schema, names[0]), names[0])
    if regex is not None:
        yield names[1], OutputFormat("regex", regex, names[1])
    if choice is not None:
        definition = json.dumps(choice, ensure_ascii=False)
        yield names[2], OutputFormat("choice", definition, names[2])


def _parsed(text: str, param: str) -> Schema:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise InvalidInputError(f"'{param}' must be a JSON Schema.", param)
    return schema
