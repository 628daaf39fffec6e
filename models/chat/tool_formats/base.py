"""What a family of models must say of its tool calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from models.chat.lark import Grammar
from models.chat.text_source import Steps, TextSource
from models.chat.tool_formats.calls import Calls
from models.errors import InvalidInputError
from models.structured.compiler import compiles
from models.structured.grammars import json_grammar
from models.structured.schema_limits import parse_schema
from models.types.generation import Tool

ANY_OBJECT: dict[str, Any] = {"type": "object"}


class ToolFormat(Protocol):
    """How calls look.

    `openings` are the texts that begin calls anywhere in a reply, the usual one first. `markers`
    are all texts that the format knows calls by.
    """

    openings: tuple[str, ...]
    markers: tuple[str, ...]

    @property
    def bare(self) -> str:
        """Where calls usually have no opening and are the whole answer: what such an answer may
        begin with, single characters; "" elsewhere."""

    @property
    def new_id(self) -> Callable[[], str]:
        """Makes ids of calls as these models expect them."""

    @property
    def repeats(self) -> bool:
        """Further calls begin with an opening of their own."""

    def read(self, opening: str, source: TextSource, calls: Calls) -> Steps[None]:
        """Read the calls that follow an opening ("": that begin the reply). NotACall where it is
        none, or none any more."""

    def grammar(self, tools: Sequence[CallableTool], grammar: Grammar, *, many: bool) -> str:
        """An expression for what follows the usual opening. `many`: more than one call may follow,
        unless each has its own opening."""


@dataclass(frozen=True, slots=True)
class CallableTool:
    """A tool, and the schema that its arguments are held to."""

    name: str
    schema: dict[str, Any]

    @classmethod
    def of(cls, tool: Tool, *, held: bool) -> CallableTool:
        """A strict tool's arguments are held to its schema: InvalidInputError when that cannot be
        followed. Those of others are as well if they are `held` and it can be followed."""
        if tool.strict or held:
            schema = _followed(tool)
            if schema is not None:
                return cls(tool.name, schema)
        return cls(tool.name, ANY_OBJECT)


def _followed(tool: Tool) -> dict[str, Any] | None:
    """The schema of a tool's arguments; None where it cannot be followed, which a strict tool's
    must be. What only the compiler finds out of a strict one it refuses itself."""
    try:
        schema = parse_schema(tool.parameters or "{}", "tools")
    except InvalidInputError:
        if tool.strict:
            raise
        return None
    schema = schema if "type" in schema else {**ANY_OBJECT, **schema}
    return schema if tool.strict or compiles(json_grammar(schema)) else None
