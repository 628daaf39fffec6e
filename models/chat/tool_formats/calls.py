"""The tools that may be called, and one call while it is being read."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Iterable, Mapping
from typing import Any

from models.chat.reply_writer import ReplyWriter
from models.chat.text_source import NotACall, TextSource
from models.types.generation import Tool

_ALPHANUMERIC = string.ascii_letters + string.digits


def openai_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def mistral_id() -> str:
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))


class Calls:
    """Writes the calls of one reply. What is not yet part of a call stays on the source's record,
    to become content if no call comes of it."""

    def __init__(self, tools: Iterable[Tool], source: TextSource, writer: ReplyWriter) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._source = source
        self._writer = writer
        self._open = False

    def begin(self, name: str) -> Call:
        """A call whose name is known. NotACall for an unknown name."""
        call = self.expect()
        call.name(name)
        return call

    def expect(self, *, lazily: bool = False) -> Call:
        """A call whose name and arguments come in any order; `lazily`: it is one only if it has
        arguments."""
        return Call(self, lazily)

    def properties(self, name: str) -> Mapping[str, Any]:
        """The schemas of a tool's arguments by name."""
        try:
            schema = json.loads(self._tools[name].parameters or "{}")
        except (ValueError, RecursionError):
            return {}
        properties = schema.get("properties") if isinstance(schema, dict) else None
        return properties if isinstance(properties, dict) else {}

    def leave(self) -> None:
        """No more of the text belongs to calls. What was read and became none of them is content;
        of a call that has been sent in part, the rest is dropped, and so is the beginning of a
        further one where the reply was cut off."""
        text = self._source.recorded()
        if not self._open and not (self._source.ended and self._writer.calls):
            self._writer.content(text)
        self._open = False

    def known(self, name: str) -> bool:
        return name in self._tools

    def write_begin(self, name: str) -> None:
        self._open = True
        self._source.record()
        self._writer.begin_call(name)

    def write_arguments(self, text: str) -> None:
        self._source.record()
        self._writer.arguments(text)

    def write_end(self) -> None:
        self._open = False
        self._source.record()


class Call:
    """One call: sent from the moment its name is known to be that of a tool."""

    def __init__(self, calls: Calls, lazily: bool) -> None:
        self._calls = calls
        self._lazily = lazily
        self._name: str | None = None
        self._begun = False
        self._early: list[str] = []
        self.has_arguments = False

    def name(self, text: str) -> None:
        if self._name is not None or not self._calls.known(text):
            raise NotACall
        self._name = text
        if not self._lazily or self.has_arguments:
            self._begin()

    def arguments(self, text: str) -> None:
        """More of the arguments' text."""
        self.has_arguments = self.has_arguments or bool(text)
        if self._begun:
            self._calls.write_arguments(text)
            return
        self._early.append(text)
        if self._name is not None:
            self._begin()

    def end(self) -> None:
        """The call is complete. NotACall when its name never came."""
        if not self._begun:
            raise NotACall
        if not self.has_arguments:
            self._calls.write_arguments("{}")
        self._calls.write_end()

    def _begin(self) -> None:
        assert self._name is not None  # noqa: S101  (both callers know it)
        self._begun = True
        self._calls.write_begin(self._name)
        self._calls.write_arguments("".join(self._early))
        self._early = []
