"""Outputs that a grammar allows are what was asked for, whatever the model would rather write."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from models.errors import InvalidInputError, ModelError
from models.structured.compiler import GrammarCompiler
from models.structured.constraint import TokenConstraint
from models.structured.grammars import (
    body_of,
    grammar,
    grammar_of,
    json_body,
    literal,
)
from models.types.generation import OutputFormat
from tests.unit.structured_samples import (
    VOCABULARY,
    allowed,
    allowed_text,
    write,
    write_at_random,
)

COMPILER = GrammarCompiler(VOCABULARY)


def strict(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An object as OpenAI's strict mode wants it."""
    required = list(properties)
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        **more,
    }


TREE = strict({"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}})
LINKED = strict(
    {"head": {"$ref": "#/$defs/node"}},
    **{
        "$defs": {
            "node": {
                "anyOf": [
                    strict({"text": {"type": "string"}, "next": {"$ref": "#/$defs/node"}}),
                    {"type": "null"},
                ]
            }
        }
    },
)
SCHEMAS: dict[str, dict[str, Any]] = {
    "any object": {"type": "object"},
    "anything": {},
    "strings": strict({"name": {"type": "string"}, "city": {"type": "string"}}),
    "scalars": strict(
        {"a": {"type": "integer"}, "b": {"type": "number"}, "c": {"type": "boolean"}}
    ),
    "null": strict({"a": {"type": "null"}}),
    "nullable": strict({"a": {"type": ["string", "null"]}}),
    "optional": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"const": 1}}},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    "mixed map": {
        "type": "object",
        "properties": {"name": {"type": "integer"}},
        "required": ["name"],
    },
    "pattern map": {
        "type": "object",
        "patternProperties": {"^x_[a-z]{1,3}$": {"type": "boolean"}},
        "additionalProperties": False,
    },
    "enum": strict({"a": {"enum": ["red", "green", 3, None, ["x"], {"k": 1}]}}),
    "const": {"const": {"deep": [1, "a, b: c", {"x": True}]}},
    "unicode enum": {"enum": ["é", "日本", "😀", 'quote"', "line\nbreak", "back\\slash"]},
    "unicode names": strict({"naïve": {"type": "string"}, "日本": {"type": "boolean"}}),
    "any of": {"anyOf": [{"type": "string"}, {"type": "integer"}, strict({"a": {"const": "b"}})]},
    "discriminated": {
        "oneOf": [
            strict({"kind": {"const": "cat"}, "lives": {"type": "integer"}}),
            strict({"kind": {"const": "dog"}, "name": {"type": "string"}}),
        ]
    },
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"a": {"minimum": 5, "maximum": 7}}},
        ]
    },
    "array": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "boolean"}],
        "items": False,
        "minItems": 2,
    },
    "matrix": {
        "type": "array",
        "items": {"type": "array", "items": {"type": "number"}, "maxItems": 3},
        "maxItems": 3,
    },
    "lengths": strict({"a": {"type": "string", "minLength": 2, "maxLength": 5}}),
    "pattern": strict({"a": {"type": "string", "pattern": "^[A-Z]{2}-\\d{3}$"}}),
    "bounds": strict({"a": {"type": "integer", "minimum": -3, "maximum": 12}}),
    "open bounds": strict(
        {"a": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1.5}}
    ),
    "multiples": strict({"a": {"type": "integer", "multipleOf": 7}}),
    "formats": strict(
        {
            "mail": {"type": "string", "format": "email"},
            "address": {"type": "string", "format": "ipv4"},
            "id": {"type": "string", "format": "uuid"},
        }
    ),
    "tree": TREE,
    "linked list": LINKED,
}


def schema_format(schema: dict[str, Any]) -> OutputFormat:
    return OutputFormat("json_schema", json.dumps(schema))


def constraint(output_format: OutputFormat) -> TokenConstraint:
    return COMPILER.compile(grammar_of(output_format), "response_format")


def complete(output_format: OutputFormat, text: str) -> bool:
    """Whether a text is a complete output."""
    state = constraint(output_format)
    try:
        write(state, text)
    except ModelError:
        return False
    return bool(allowed(state) & VOCABULARY.end_tokens)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_is_written_is_valid(name: str, seed: int) -> None:
    text = write_at_random(constraint(schema_format(SCHEMAS[name])), seed)
    checker = FormatChecker(("email", "ipv4", "uuid"))
    Draft202012Validator(SCHEMAS[name], format_checker=checker).validate(json.loads(text))


def test_a_pattern_without_anchors_may_match_anywhere() -> None:
    output = schema_format({"type": "string", "pattern": "b+c"})
    assert complete(output, '"abbcd"')
    assert not complete(output, '"abbd"')


def test_date_times_are_rfc_3339() -> None:
    text = write_at_random(constraint(schema_format({"type": "string", "format": "date-time"})), 3)
    shape = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
    assert re.fullmatch(shape, json.loads(text), re.IGNORECASE)


@pytest.mark.parametrize("seed", range(5))
def test_json_object_is_an_object(seed: int) -> None:
    state = constraint(OutputFormat("json_object"))
    assert allowed_text(state) == {b"{", b'{"'}
    assert isinstance(json.loads(write_at_random(state, seed)), dict)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"a":[1,2]}', True),
        ('{"a": [1, 2]}', True),
        ('{"a":  1}', False),
        ('{"a" :1}', False),
        ('{ "a":1}', False),
        ('{"a":1\n}', False),
        ('{"a":\n1}', False),
        (' {"a":1}', False),
        ('{"a":1} ', False),
    ],
)
def test_white_space_is_one_space_after_commas_and_colons(text: str, fits: bool) -> None:
    assert complete(OutputFormat("json_object"), text) == fits


def test_a_client_cannot_choose_the_white_space() -> None:
    schema = {"type": "object", "x-guidance": {"whitespace_flexible": True, "lenient": True}}
    assert not complete(schema_format(schema), '{"a":\n1}')


def test_a_property_cannot_be_repeated_under_an_escaped_name() -> None:
    output = schema_format(SCHEMAS["mixed map"])
    assert complete(output, '{"name": 1, "x": "y"}')
    assert not complete(output, '{"name": 1, "\\u006eame": "y"}')
    assert not complete(output, '{"name": 1, "name": "y"}')


def test_properties_come_in_the_order_of_the_schema() -> None:
    output = schema_format(SCHEMAS["strings"])
    assert complete(output, '{"name": "a", "city": "b"}')
    assert not complete(output, '{"city": "b", "name": "a"}')


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        (r"\d{3}", "123", "12"),
        (r"a/b", "a/b", "ab"),
        (r"a\/b", "a/b", "a\\/b"),
        (r"[/#]x", "#x", "x"),
        (r"^yes$|^no$", "no", "yesno"),
        ("a\nb", "a\nb", "a b"),
        ("é+", "éé", "e"),
        ('"\\w+"', '"abc"', "abc"),
    ],
)
def test_a_regular_expression_is_matched_whole(pattern: str, fitting: str, other: str) -> None:
    output = OutputFormat("regex", pattern)
    assert complete(output, fitting)
    assert not complete(output, other)
    assert not complete(output, fitting + "!")


def test_digits_are_ascii() -> None:
    assert not complete(OutputFormat("regex", r"\d"), "٣")


CHOICES = ["yes", "no", "nope", 'a "quoted" one', "a\\b", "#x", "//y", "two\nlines", "é", "tab\t"]


def choices(*texts: str) -> OutputFormat:
    return OutputFormat("choice", json.dumps(texts))


@pytest.mark.parametrize("text", CHOICES)
def test_each_choice_can_be_written(text: str) -> None:
    assert complete(choices(*CHOICES), text)


@pytest.mark.parametrize("seed", range(20))
def test_only_choices_can_be_written(seed: int) -> None:
    assert write_at_random(constraint(choices(*CHOICES)), seed) in CHOICES


def test_a_choice_may_begin_another() -> None:
    state = write(constraint(choices("no", "nope")), "no")
    assert allowed(state) == {*b"p", *VOCABULARY.end_tokens}
    assert not state.finished


@pytest.mark.parametrize(
    ("output_format", "message"),
    [
        (choices(), "1 to 1024 choices"),
        (choices("a", ""), "not empty"),
        (choices("a\x00"), "control characters"),
        (choices("\ud800"), "control characters"),
        (choices(*map(str, range(1025))), "1 to 1024 choices"),
        (OutputFormat("choice", "yes"), "list of texts"),
        (OutputFormat("choice", "[" * 5000), "list of texts"),
        (OutputFormat("choice", '["a", 1]'), "list of texts"),
        (OutputFormat("choice", json.dumps(["x" * 70_000])), "64 KiB"),
        (OutputFormat("regex", ""), "1 to 4096 characters"),
        (OutputFormat("regex", "a" * 4097), "1 to 4096 characters"),
        (OutputFormat("regex", "a\x00"), "control characters"),
    ],
)
def test_definitions_that_are_refused(output_format: OutputFormat, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        grammar_of(output_format, "guided")
    assert caught.value.param == "guided"


def test_bodies_compose() -> None:
    parts = [literal("<call>"), json_body('{"type": "integer"}', "tools"), literal("</call>")]
    call = " ".join(parts)
    text = grammar(f"call+ | {body_of(choices('none'))}", f"call: {call}")
    written = write(COMPILER.compile(text, "tools"), "<call>12</call><call>3</call>")
    assert allowed(written) == {*b"<", *VOCABULARY.end_tokens}
    assert write(COMPILER.compile(text, "tools"), "none").finished
