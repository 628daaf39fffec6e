"""Writes grammars of replies, in llguidance's dialect of Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from models.structured import grammars

MAX_CALLS = 16
"""In one constrained reply: small models repeat a call for as long as they may."""


class Grammar:
    """Rules under construction.

    Control tokens are referred to by their ids, as text never matches them. `FREE` is any text:
    it contains no control token.
    """

    def __init__(self, control_tokens: Mapping[str, int]) -> None:
        self._control_tokens = control_tokens
        known = sorted(filter(None, control_tokens), key=len, reverse=True)
        self._pattern = re.compile("(" + "|".join(map(re.escape, known)) + ")") if known else None
        self._rules = [r"FREE: /(?s:.*)/"]

    def text(self, text: str) -> str:
        """An expression for exactly this text."""
        pieces = [text] if self._pattern is None else self._pattern.split(text)
        parts = [self._control_tokens.get(piece, piece) for piece in pieces if piece]
        return " ".join(map(grammars.literal, parts))

    def schema(self, schema: Mapping[str, Any]) -> str:
        """A rule for JSON that fits a schema. InvalidInputError for what cannot be followed."""
        return self.rule(grammars.json_body(json.dumps(schema), "tools"))

    def rule(self, body: str, options: str = "") -> str:
        """A new rule; its name."""
        name = f"part_{len(self._rules)}"
        self._rules.append(f"{name}{options}: {body}")
        return name

    def terminal(self, body: str) -> str:
        """A new terminal; its name."""
        name = f"TEXT_{len(self._rules)}"
        self._rules.append(f"{name}: {body}")
        return name

    def through(self, marker: str) -> str:
        """Free text, up to and with the first marker."""
        if marker in self._control_tokens:
            return f"FREE {self.text(marker)}"
        return self.rule(f"FREE {grammars.literal(marker)}", options="[lazy]")

    def matching(self, text: str, end: str) -> str:
        """What matches the body of a terminal, up to and with the first `end` that is text."""
        return self.rule(f"{self.terminal(text)} {grammars.literal(end)}", options="[lazy]")

    def without(self, marker: str) -> str:
        """Free text in which the marker does not occur."""
        if marker in self._control_tokens:
            return "FREE"
        return self.terminal(f"FREE & ~(FREE {grammars.literal(marker)} FREE)")

    def written(self, start: str) -> str:
        return grammars.grammar(start, *self._rules)


def further_calls(call: str) -> str:
    """An expression for the calls after the first one."""
    return f"({call}){{0,{MAX_CALLS - 1}}}"


def any_of(expressions: Iterable[str]) -> str:
    return "(" + " | ".join(expressions) + ")"
