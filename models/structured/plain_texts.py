"""Texts that stand outside of JSON and must fit the schema of a string all the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llguidance import regex_to_lark

_ESCAPES_AND_CLASSES = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_ANYTHING = "(?s:.*)"


def text_of(schema: Mapping[str, Any]) -> str:
    """The body of a terminal for a text of the length and with the pattern that a schema asks for;
    "" where it asks for neither.

    `parse_schema` has accepted the schema. Patterns with anchors between their parts are left out.
    """
    bounds = []
    if "minLength" in schema or "maxLength" in schema:
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        bounds.append(f"(?s:.{{{least},{'' if most is None else int(most)}}})")
    if "pattern" in schema and (found := _containing(schema["pattern"])):
        bounds.append(found)
    return " & ".join(f"/{regex_to_lark(bound, 'd')}/" for bound in bounds)


def _containing(pattern: str) -> str:
    """A regular expression of the texts in which a pattern is found; "" where that is not easy."""
    from_start = pattern.startswith("^")
    to_end = pattern.endswith("$") and not _is_escaped(pattern, len(pattern) - 1)
    inner = pattern[from_start : len(pattern) - to_end]
    operators = _ESCAPES_AND_CLASSES.sub("", inner)
    if {"^", "$"} & set(operators) or ((from_start or to_end) and _has_choices(operators)):
        return ""
    before, after = "" if from_start else _ANYTHING, "" if to_end else _ANYTHING
    return f"{before}(?:{inner}){after}"


def _is_escaped(pattern: str, at: int) -> bool:
    before = pattern[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _has_choices(operators: str) -> bool:
    """Whether the whole is a choice, of which an anchor would belong to one part alone."""
    depth = 0
    for operator in operators:
        depth += (operator == "(") - (operator == ")")
        if operator == "|" and not depth:
            return True
    return False
