"""Hostile values for a field, by what its schema says it takes.

Values are JSON as text: most of these cannot be written by a JSON library.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CANARY = "canary-7351"
LONG = '"' + "x" * 1_000_001 + '"'
"""One more character than a text may have."""
DEEP = 100_000
NOT_FINITE = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999")
HUGE = ("9223372036854775808", "-9223372036854775809", "1" + "0" * 5000)
NUMBERS = (*HUGE, "1e308", "-0.0", "-1", "0", "1000000000", "1.5")
STRINGS = (
    f'"{CANARY}"',
    '""',
    '"\\u0000"',
    LONG,
    "\"{{ 'a' * 10**10 }}\"",
    '"(a+)+b"',
    '"../../etc/passwd"',
    '"a\\r\\nset-cookie: x"',
)
NEVER = (*NOT_FINITE, '"\\ud800"', "[" * DEEP, '{"a":' * DEEP, "'x'", "0x10", "")
"""No field takes these: they are no JSON that can be read, or no numbers."""
OF_OTHER_TYPES = {
    "integer": ("1.5", '"5"', "true", "[]", "{}", HUGE[2]),
    "number": ('"5"', "false", "[]", "{}"),
    "string": ("5", "true", "[]", "{}"),
    "boolean": ('"true"', "1", "0", "[]", "{}"),
    "array": ('"x"', "5", "true", "{}"),
    "object": ('"x"', "5", "true", "[]"),
}
TYPE_OF_JSON = {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean"}
MANY = 100_000
ARRAYS = tuple(f"[{','.join([item] * MANY)}]" for item in ("0", '""', "{}", "[]"))
MEMBERS = ",".join(f'"k{i}":0' for i in range(MANY))
OBJECTS = (f"{{{MEMBERS}}}", '{"$ref":"#"}', "{}")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a body: where it is, and the JSON types that it takes; empty: anything."""

    path: tuple[str | int, ...]
    types: frozenset[str]

    def __str__(self) -> str:
        return ".".join(map(str, self.path))


def fields_of(schema: dict[str, Any], sample: Any) -> list[Field]:
    """Every field of a JSON Schema that the sample, or the schema itself, leads to.

    Where several shapes lead to one place, it takes what any of them takes.
    """
    found: dict[tuple[str | int, ...], frozenset[str]] = {}
    for field in _walk(schema, schema.get("$defs", {}), sample, ()):
        known = found.get(field.path, field.types)
        found[field.path] = known | field.types if known and field.types else frozenset()
    return [Field(path, types) for path, types in found.items() if path]


def _walk(
    schema: dict[str, Any], definitions: dict[str, Any], sample: Any, path: tuple[str | int, ...]
) -> Iterator[Field]:
    choices = list(_alternatives(schema, definitions, sample))
    known = all("type" in c or "enum" in c or "const" in c for c in choices)
    types = {c.get("type", "string") for c in choices} if known else set()
    if any(c.get("const") is False for c in choices):
        types.add("integer")  # pydantic's literals compare: 0 is False
    yield Field(path, frozenset(types))
    if len(path) > 6:
        return
    for choice in choices:
        if choice.get("type") == "object" and (sample is None or isinstance(sample, dict)):
            inner = dict(choice.get("properties", {}))
            extra = choice.get("additionalProperties")
            if isinstance(extra, dict):
                inner |= {name: extra for name in sample or {} if name not in inner}
            for name, part in inner.items():
                yield from _walk(part, definitions, (sample or {}).get(name), (*path, name))
        elif choice.get("type") == "array" and isinstance(sample, list) and sample:
            part = choice.get("items") or (choice.get("prefixItems") or [{}])[0]
            yield from _walk(part, definitions, sample[0], (*path, 0))


def _alternatives(
    schema: dict[str, Any], definitions: dict[str, Any], sample: Any
) -> Iterator[dict[str, Any]]:
    """The shapes that a schema allows; where a field tells them apart, the sample's."""
    if "discriminator" in schema and isinstance(sample, dict):
        told_by = schema["discriminator"]
        schema = {"$ref": told_by["mapping"][sample[told_by["propertyName"]]]}
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        yield from _alternatives(target, definitions, sample)
    elif "anyOf" in schema or "oneOf" in schema:
        for choice in schema.get("anyOf") or schema["oneOf"]:
            yield from _alternatives(choice, definitions, sample)
    else:
        yield schema


def wrong_values(field: Field) -> Iterator[str]:
    """What the field must refuse, whatever it is for."""
    yield from NEVER if len(field.path) == 1 else NEVER[::3]
    takes = field.types - {"null"}
    if not takes:
        return
    for value in {value for kind in takes for value in OF_OTHER_TYPES[kind]}:
        kind = TYPE_OF_JSON.get(value[0], "number" if "." in value else "integer")
        if kind not in takes and not (kind == "integer" and "number" in takes):
            yield value


def odd_values(field: Field) -> Iterator[str]:
    """What the field may take or refuse; a third of it where there are many like it."""
    takes = field.types or {"array", "object", "string", "number"}
    whole = len(field.path) == 1 and bool(field.types)
    few = slice(None) if whole else slice(len(str(field)) % 3, None, 3)
    if takes & {"integer", "number"}:
        yield from NUMBERS[few]
    if "string" in takes:
        yield from STRINGS[few]
    if "array" in takes:
        yield from ("[]", "[[]]", "[[[]]]", "[null]", *ARRAYS)[few]
    if "object" in takes:
        yield from OBJECTS[few]
    yield "null"


def with_value(sample: dict[str, Any], field: Field, value: str) -> bytes:
    """The sample as JSON, with the text of a value in the field's place."""
    mark = "\x00mark"
    body = json.loads(json.dumps(sample))
    _put(body, field.path, mark)
    return json.dumps(body).replace(json.dumps(mark), value, 1).encode("utf-8", "surrogatepass")


def _put(body: Any, path: tuple[str | int, ...], value: str) -> None:
    *outer, last = path
    for key in outer:
        body = body.setdefault(key, {}) if isinstance(body, dict) else body[key]
    body[last] = value
