"""Calls between the tool tokens of DeepSeek V2.5, V3, R1 and V3.1."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from models.chat.lark import Grammar, any_of, further_calls
from models.chat.text_source import Markers, NotACall, Steps, TextSource
from models.chat.tool_formats.base import CallableTool
from models.chat.tool_formats.calls import Calls, openai_id
from models.chat.tool_formats.json_reader import read_arguments

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, CALL_END, SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"

_SEPARATOR = Markers([SEPARATOR])
_LINE = re.compile(r"[^\n]+")


class DeepSeekFormat:
    """`fenced`: `function<sep>name` and the arguments in a fence, as before V3.1; both forms are
    read in any case."""

    openings: tuple[str, ...] = (BEGIN, CALL)
    markers: tuple[str, ...] = (BEGIN, END, CALL, CALL_END, SEPARATOR)
    bare = ""
    new_id: Callable[[], str] = staticmethod(openai_id)
    repeats = False

    def __init__(self, *, fenced: bool) -> None:
        self._fenced = fenced

    def read(self, opening: str, source: TextSource, calls: Calls) -> Steps[None]:
        if opening == BEGIN:
            yield from source.space()
            yield from source.expect(CALL)
        while True:
            yield from _read_call(source, calls)
            yield from source.space()
            if not (yield from source.literal(CALL)):
                break
        yield from source.literal(END)
        source.record()

    def grammar(self, tools: Sequence[CallableTool], grammar: Grammar, *, many: bool) -> str:
        call = any_of(self._call(tool, grammar) for tool in tools)
        more = " " + further_calls(f'"\\n"? {call}') if many else ""
        return f"{call}{more} {grammar.text(END)}"

    def _call(self, tool: CallableTool, grammar: Grammar) -> str:
        before, after = CALL + tool.name + SEPARATOR, CALL_END
        if self._fenced:
            before, after = f"{CALL}function{SEPARATOR}{tool.name}\n```json\n", f"\n```{CALL_END}"
        return f"{grammar.text(before)} {grammar.schema(tool.schema)} {grammar.text(after)}"


def _read_call(source: TextSource, calls: Calls) -> Steps[None]:
    parts: list[str] = []
    if not (yield from source.until(_SEPARATOR, parts.append)):
        raise NotACall
    name = "".join(parts)
    if name.strip() == "function" and (yield from source.peek()) != "{":
        name = yield from source.run(_LINE)
    yield from source.space()
    if (yield from source.literal("```")):
        yield from source.literal("json")
        yield from source.space()
    call = calls.begin(name.strip())
    yield from read_arguments(source, call)
    call.end()
    yield from source.space()
    yield from source.literal("```")
    yield from source.space()
    yield from source.literal(CALL_END)
