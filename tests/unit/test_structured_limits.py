"""Schemas that would cost too much or cannot be kept are refused, with a sentence that says why."""

from __future__ import annotations

import json
import pickle
import random
from typing import Any

import numpy as np
import pytest

from models.errors import InvalidInputError, ModelError
from models.structured.compiler import MAX_GRAMMAR, GrammarCompiler
from models.structured.constraint import TokenConstraint
from models.structured.grammars import grammar_of
from models.structured.schema_limits import (
    MAX_BRANCHES,
    MAX_DEPTH,
    MAX_DIVISOR,
    MAX_ENUM,
    MAX_PATTERN,
    MAX_PROPERTIES,
    MAX_TEXT,
    parse_schema,
)
from models.types.generation import OutputFormat
from tests.unit.structured_samples import VOCABULARY, allowed, allowed_text, write

COMPILER = GrammarCompiler(VOCABULARY)


def refusal(schema: Any) -> str:
    """The sentence with which a schema (or the text of one) is refused, by whichever stage."""
    text = schema if isinstance(schema, str) else json.dumps(schema)
    with pytest.raises(InvalidInputError) as caught:
        COMPILER.compile(grammar_of(OutputFormat("json_schema", text), "schema"), "schema")
    assert caught.value.param == "schema"
    assert len(caught.value.message) < 260
    assert "\n" not in caught.value.message
    return caught.value.message


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


def pattern(text: str) -> dict[str, Any]:
    return {"type": "string", "pattern": text}


def divisors(*values: float) -> dict[str, Any]:
    return {"allOf": [{"type": "number", "multipleOf": value} for value in values]}


BEFORE_COMPILING: list[tuple[Any, str]] = [
    ({"const": "x" * MAX_TEXT}, "larger than 64 KiB"),
    ({"const": "é" * (MAX_TEXT // 2)}, "larger than 64 KiB"),
    ("{", "not valid JSON"),
    ("[" * 5000, "not valid JSON"),
    ("[1]", "not a JSON object"),
    ("true", "not a JSON object"),
    ('{"const": NaN}', "not finite"),
    ('{"minimum": 1e999}', "not finite"),
    (nested(MAX_DEPTH + 1), "64 levels deep"),
    (nested(900), "64 levels deep"),
    ({"const": json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)}, "64 levels deep"),
    ({"anyOf": [{}] * (MAX_BRANCHES + 1)}, "'anyOf' with more than 256 entries"),
    ({"anyOf": [{}] * 10_000}, "'anyOf' with more than 256 entries"),
    ({"enum": list(range(MAX_ENUM + 1))}, "'enum' with more than 1000 entries"),
    (
        {"properties": {str(i): {} for i in range(MAX_PROPERTIES + 1)}},
        "'properties' with more than 400 entries",
    ),
    (pattern("a" * (MAX_PATTERN + 1)), "'pattern' of more than 2048"),
    ({"patternProperties": {"a" * (MAX_PATTERN + 1): {}}}, "'pattern' of more than 2048"),
    ({"type": "nope"}, "'type' that JSON Schema does not know"),
    ({"type": ["string", 5]}, "'type' that JSON Schema does not know"),
    ({"type": {"a": 1}}, "'type' that JSON Schema does not know"),
    ({"$ref": "http://127.0.0.1/"}, "only local ones"),
    ({"$ref": "file:///etc/passwd"}, "only local ones"),
    ({"$ref": "other.json#/a"}, "only local ones"),
    ({"$ref": 5}, "'$ref' that is not a text"),
    ({"$schema": "http://127.0.0.1/"}, "no draft of JSON Schema"),
    ({"properties": []}, "'properties' that is not an object"),
    ({"properties": {"a": 5}}, "no schema where one belongs"),
    ({"items": "string"}, "no schema where one belongs"),
    ({"anyOf": {"a": {}}}, "'anyOf' that is not a list"),
    ({"enum": "a"}, "'enum' that is not a list"),
    ({"required": True}, "'required' that is not a list"),
    ({"minLength": "1,2})/ | /"}, "'minLength' that is not a whole number"),
    ({"maxLength": 1.5}, "'maxLength' that is not a whole number"),
    ({"maxLength": True}, "'maxLength' that is not a whole number"),
    (pattern(5), "'pattern' that is not a text"),  # type: ignore[arg-type]
    (divisors(0), "not a positive number"),
    (divisors(-1), "not a positive number"),
    ({"multipleOf": True}, "not a positive number"),
    (divisors(MAX_DIVISOR + 7), "too large to be followed"),
    (divisors(9973, 9967), "too large to be followed"),
    (divisors(1e9, 1e-9), "too large to be followed"),
    (divisors(1e300, 1e-300), "too large to be followed"),
]


@pytest.mark.parametrize(("schema", "reason"), BEFORE_COMPILING)
def test_refused_before_compiling(schema: Any, reason: str) -> None:
    assert reason in refusal(schema)


@pytest.mark.parametrize(
    "keyword",
    [
        *("not", "if", "then", "else", "contains", "uniqueItems", "propertyNames", "nullable"),
        *("dependentRequired", "dependentSchemas", "dependencies", "additionalItems"),
        *("unevaluatedItems", "unevaluatedProperties", "minContains", "$dynamicRef"),
    ],
)
def test_keywords_that_cannot_be_kept_are_refused_by_name(keyword: str) -> None:
    schema = {"type": "object", "properties": {"deep": {"items": {keyword: True}}}}
    assert f"'{keyword}', which is not supported" in refusal(schema)


def test_a_property_may_be_called_like_an_unsupported_keyword() -> None:
    schema = {"properties": {"not": {"enum": [{"if": 1}]}}, "default": {"contains": 1}}
    assert parse_schema(json.dumps(schema), "schema") == schema


def test_annotations_and_unknown_keywords_are_ignored() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://example.com/a",
        "title": "T",
        "description": "D",
        "default": 1,
        "examples": [1],
        "deprecated": True,
        "x-order": 3,
        "type": "integer",
    }
    text = grammar_of(OutputFormat("json_schema", json.dumps(schema)))
    assert allowed(write(COMPILER.compile(text, "schema"), "12")) & VOCABULARY.end_tokens


BY_THE_COMPILER: list[tuple[Any, str]] = [
    (pattern("["), "unclosed character class"),
    (pattern("(?=a)b"), "look-around"),
    (pattern("(a)\\1"), "backreferences are not supported"),
    (pattern("(" * 900 + ")" * 900), "held to this format"),
    ({"$ref": "#"}, "nothing fits it"),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "nothing fits it",
    ),
    ({"$ref": "#/$defs/missing"}, "does not exist"),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a", "type": "object"}}},
        "circular references",
    ),
    ({"enum": []}, "anyOf is empty"),
    ({"type": "integer", "minimum": 5, "maximum": 2}, "minimum (5) is greater than maximum (2)"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "greater than maxLength"),
    ({"type": "string", "maxLength": -1}, "maxLength"),
    ({"minimum": "a"}, "minimum"),
    ({"type": "string", "format": "nonsense"}, "Unknown format: nonsense"),
    ({"oneOf": [{"type": "string"}, {"minLength": 2}]}, "oneOf"),
    (
        {
            "allOf": [
                {"anyOf": [{"properties": {f"{i}{j}": {}}} for j in range(5)]} for i in range(9)
            ]
        },
        "schema too large",
    ),
]


@pytest.mark.parametrize(("schema", "reason"), BY_THE_COMPILER)
def test_refused_by_the_compiler(schema: Any, reason: str) -> None:
    assert reason in refusal(schema)


@pytest.mark.parametrize("text", ["[", "(?<a)b", r"\b", "(a)\\1", "a{9999999999}", r"[^\s\S]"])
def test_regular_expressions_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        COMPILER.compile(grammar_of(OutputFormat("regex", text)), "regex")


@pytest.mark.parametrize(
    "schema",
    [
        {"const": "a\u0001b"},
        {"const": {"k\x7f": 1}},
        {"enum": ["ok", ["\x00"]]},
        {"const": "\ud800"},
        pattern("^\u0001$"),
        {"type": "object", "patternProperties": {"^\u0001$": {"type": "integer"}}},
        {"type": "object", "properties": {"a": pattern("\x1f")}},
    ],
    ids=ascii,
)
def test_control_characters_cannot_be_spelled(schema: dict[str, Any]) -> None:
    assert "control characters" in refusal(schema)


def test_line_breaks_and_tabs_can() -> None:
    for schema in ({"const": "a\n\tb"}, {"enum": ["\r\n"]}, pattern("a\tb")):
        COMPILER.compile(grammar_of(OutputFormat("json_schema", json.dumps(schema))), "schema")


def test_a_pattern_that_nothing_fits_is_the_clients_fault() -> None:
    output = OutputFormat("json_schema", json.dumps(pattern(r"^\x00$")), "guided_json")
    with pytest.raises(InvalidInputError) as caught:
        follow(COMPILER.compile(grammar_of(output), output.param))
    assert caught.value.param == "guided_json"


def follow(constraint: TokenConstraint) -> None:
    """Write the first token that is allowed, again and again."""
    for _ in range(20):
        logits = np.zeros(VOCABULARY.size, np.float32)
        constraint.mask(logits)
        constraint.accept(int(logits.argmax()))


def test_a_refusal_does_not_repeat_the_schema() -> None:
    schema = {"type": "object", "properties": {"secret": {"const": "x" * 500}, "a": pattern("[")}}
    assert "secret" not in refusal(schema)
    assert "xxx" not in refusal(schema)


def test_a_refusal_survives_the_way_to_another_process() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_schema("{", "schema")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (copy.message, copy.param) == (caught.value.message, "schema")


def test_a_grammar_of_too_many_schemas_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="too large together") as caught:
        COMPILER.compile('start: "a"\n' + " " * MAX_GRAMMAR, "tools")
    assert caught.value.param == "tools"


def test_a_grammar_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="not valid Unicode"):
        COMPILER.compile('start: "\ud800"', "tools")


COSTLY: dict[str, dict[str, Any]] = {
    "nested repeats": pattern("(a+)+b"),
    "million repeats": pattern("(x{1000}){1000}"),
    "repeats of repeats": pattern("((((a{1,1000}){1,1000}){1,1000}){1,1000}){1,1000}"),
    "long": {"type": "string", "maxLength": 524_288},
    "many items": {"type": "array", "items": {"type": "string"}, "maxItems": 524_288},
    "required recursion": {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "all properties optional": {"properties": {f"p{i}": {} for i in range(MAX_PROPERTIES)}},
    "all branches": {"anyOf": [{"type": "array", "minItems": i} for i in range(MAX_BRANCHES)]},
    "deepest": nested(MAX_DEPTH),
    "largest divisor": divisors(MAX_DIVISOR),
    "small divisors": divisors(0.01, 0.25, 5),
    "most alternatives": {"enum": [f"value {i}" for i in range(MAX_ENUM)]},
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_looks_costly_and_is_not_is_accepted(name: str) -> None:
    text = grammar_of(OutputFormat("json_schema", json.dumps(COSTLY[name])))
    assert allowed(COMPILER.compile(text, "schema"))


def write_masked(state: TokenConstraint, text: bytes) -> None:
    for byte in text:
        allowed(state)
        state.accept(byte)


def test_a_pattern_that_becomes_too_complex_fails_its_request_and_no_other() -> None:
    text = grammar_of(OutputFormat("json_schema", json.dumps(pattern("(.{0,200}a){200}"))))
    state = write(COMPILER.compile(text, "schema"), '"')
    with pytest.raises(ModelError, match="any further"):
        write_masked(state, bytes(random.Random(0).choices(b"ab", k=200)))
    other = COMPILER.compile(text, "schema")
    assert {piece[:1] for piece in allowed_text(other)} == {b'"'}
