"""Which JSON Schemas are accepted, checked before anything is compiled.

Refused are schemas that would take long to compile or to follow, and keywords that the compiler
ignores or lacks although they say something about what is valid: an output that breaks the schema
must not look like one that keeps it. Annotations and unknown keywords say nothing about what is
valid (JSON Schema 2020-12, core, 6.5) and are ignored.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NoReturn

from models.errors import InvalidInputError

MAX_TEXT = 64 * 1024
"""Bytes of the schema's text."""

MAX_DEPTH = 64
"""Objects and arrays inside each other; a level of the output takes two or three of them."""

MAX_BRANCHES = 256
"""Subschemas of one anyOf, oneOf, allOf or prefixItems."""

MAX_PROPERTIES = 400
"""Of one object: optional ones may all come next, and what may come next is bounded."""

MAX_ENUM = 1000
MAX_PATTERN = 2048

MAX_DIVISOR = 10_000
"""Least common multiple of all `multipleOf`, in units of their last decimal: an automaton has a
state per remainder. 10,007 compiles in 40 ms, 300,007 in 2.7 s."""

_UNSUPPORTED = frozenset(
    {
        *("not", "if", "then", "else", "nullable", "dependencies", "propertyNames"),
        *("contains", "minContains", "maxContains", "uniqueItems", "additionalItems"),
        *("dependentRequired", "dependentSchemas", "$dynamicRef", "$recursiveRef"),
        *("unevaluatedItems", "unevaluatedProperties"),
    }
)
_NAMED_SUBSCHEMAS = ("properties", "patternProperties", "$defs", "definitions")
_LISTED_SUBSCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_DRAFTS = ("draft-04/", "draft-06/", "draft-07/", "draft/2019-09/", "draft/2020-12/")
_LINE_CONTROLS = frozenset("\n\r\t")


def parse_schema(text: str, param: str) -> dict[str, Any]:
    """The schema that a JSON text holds. Raises InvalidInputError, naming `param`, when the text
    is no JSON object, is too large or uses what is not supported."""
    check = _Check(param)
    if len(text) > MAX_TEXT or len(text.encode("utf-8", "replace")) > MAX_TEXT:
        check.refuse(f"is larger than {MAX_TEXT // 1024} KiB")
    schema = check.json(text)
    if not isinstance(schema, dict):
        check.refuse("is not a JSON object")
    check.schemas(schema)
    check.divisors()
    return schema


class _Check:
    """One schema under examination; every refusal names the request's field."""

    def __init__(self, param: str) -> None:
        self._param = param
        self._divisors: list[Decimal] = []

    def refuse(self, fault: str) -> NoReturn:
        raise InvalidInputError(f"The JSON Schema {fault}.", self._param)

    def json(self, text: str) -> Any:
        """The value of a JSON text without too large numbers and too deep nesting."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            self.refuse("is not valid JSON")
        pending = [(value, 1)]
        while pending:
            item, depth = pending.pop()
            if depth > MAX_DEPTH:
                self.refuse(f"is nested more than {MAX_DEPTH} levels deep")
            if isinstance(item, dict | list):
                inner = item.values() if isinstance(item, dict) else item
                pending.extend((part, depth + 1) for part in inner)
            elif isinstance(item, float) and not math.isfinite(item):
                self.refuse("has a number that is not finite")
        return value

    def schemas(self, root: Any) -> None:
        """Check a schema and all in it. What `enum` or `default` hold are no schemas."""
        pending = [root]
        while pending:
            schema = pending.pop()
            if isinstance(schema, bool):
                continue
            if not isinstance(schema, dict):
                self.refuse("has a value that is no schema where one belongs")
            self._keywords(schema)
            pending.extend(self._subschemas(schema))

    def _subschemas(self, schema: Mapping[str, Any]) -> Iterator[Any]:
        for keyword in _NAMED_SUBSCHEMAS:
            named = self._typed(schema, keyword, dict, "an object")
            if keyword == "properties":
                self._count(named, keyword, MAX_PROPERTIES)
            yield from named.values()
        for keyword in _LISTED_SUBSCHEMAS:
            listed = self._typed(schema, keyword, list, "a list")
            self._count(listed, keyword, MAX_BRANCHES)
            yield from listed
        if "additionalProperties" in schema:
            yield schema["additionalProperties"]
        items = schema.get("items", [])  # a list of them up to draft 2019-09
        yield from items if isinstance(items, list) else [items]

    def _keywords(self, schema: Mapping[str, Any]) -> None:
        for keyword in schema:
            if keyword in _UNSUPPORTED:
                self.refuse(f"uses the keyword '{keyword}', which is not supported")
        self._types(schema)
        self._references(schema)
        self._typed(schema, "required", list, "a list")
        self._count(self._typed(schema, "enum", list, "a list"), "enum", MAX_ENUM)
        for text in _texts([schema.get("enum"), schema.get("const")]):
            self._spelled(text, "a value")
        self._pattern(self._typed(schema, "pattern", str, "a text"))
        for pattern in self._typed(schema, "patternProperties", dict, "an object"):
            self._pattern(pattern)
        for keyword in ("minLength", "maxLength"):
            self._length(schema, keyword)
        if "multipleOf" in schema:
            self._divisors.append(self._divisor(schema["multipleOf"]))

    def _length(self, schema: Mapping[str, Any], keyword: str) -> None:
        value = schema.get(keyword, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value % 1:
            self.refuse(f"has a '{keyword}' that is not a whole number")

    def _pattern(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            self.refuse(f"has a 'pattern' of more than {MAX_PATTERN} characters")
        self._spelled(pattern, "a 'pattern'")

    def _spelled(self, text: str, what: str) -> None:
        if not is_text(text):
            self.refuse(f"has {what} with control characters")

    def _types(self, schema: Mapping[str, Any]) -> None:
        types = schema.get("type", [])
        names = types if isinstance(types, list) else [types]
        for name in names:
            if not isinstance(name, str) or name not in _TYPES:
                self.refuse("has a 'type' that JSON Schema does not know")

    def _references(self, schema: Mapping[str, Any]) -> None:
        if not self._typed(schema, "$ref", str, "a text", "#").startswith("#"):
            self.refuse("has a '$ref' that does not begin with '#': only local ones are followed")
        draft = self._typed(schema, "$schema", str, "a text", _DRAFTS[-1])
        if not any(known in draft for known in _DRAFTS):
            self.refuse("has a '$schema' that is no draft of JSON Schema")

    def _divisor(self, value: Any) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            self.refuse("has a 'multipleOf' that is not a positive number")
        return Decimal(repr(value)).normalize()

    def divisors(self) -> None:
        """Together, because schemas may be intersected."""
        exponents = [int(divisor.as_tuple().exponent) for divisor in self._divisors]
        unit = min(exponents, default=0)
        large = max(exponents, default=0) - unit > math.log10(MAX_DIVISOR)
        if large or math.lcm(*(int(d.scaleb(-unit)) for d in self._divisors)) > MAX_DIVISOR:
            self.refuse("has a 'multipleOf', or several together, too large to be followed")

    def _typed(
        self, schema: Mapping[str, Any], keyword: str, kind: type, name: str, default: Any = None
    ) -> Any:
        """The value of a keyword; `default`, or else an empty value, where there is none."""
        if keyword not in schema:
            return kind() if default is None else default
        if not isinstance(schema[keyword], kind):
            self.refuse(f"has a '{keyword}' that is not {name}")
        return schema[keyword]

    def _count(self, values: Any, keyword: str, limit: int) -> None:
        if len(values) > limit:
            self.refuse(f"has '{keyword}' with more than {limit} entries")


def is_text(text: str) -> bool:
    """Whether a grammar can spell it: no control characters but line breaks and tabs, and no
    halves of surrogate pairs."""
    return all(c in _LINE_CONTROLS or unicodedata.category(c) not in ("Cc", "Cs") for c in text)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, names of its properties included."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
