"""Calls that are JSON objects with a name and arguments, between various markers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from models.chat.lark import Grammar, any_of, further_calls
from models.chat.text_source import NotACall, Steps, TextSource
from models.chat.tool_formats.base import CallableTool
from models.chat.tool_formats.calls import Calls, openai_id
from models.chat.tool_formats.json_reader import read_calls


def call_object(tool: CallableTool, grammar: Grammar, arguments: str = "arguments") -> str:
    """An expression for a call as models write it: name first, a space after colons."""
    head = f'{{"name": {json.dumps(tool.name, ensure_ascii=False)}, "{arguments}": '
    return f'{grammar.text(head)} {grammar.schema(tool.schema)} "}}"'


class HermesFormat:
    """`<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen 2.5 and 3, SmolLM3, and
    every model whose template knows nothing of tools."""

    openings: tuple[str, ...] = ("<tool_call>",)
    markers: tuple[str, ...] = ("<tool_call>", "</tool_call>")
    bare = ""
    new_id: Callable[[], str] = staticmethod(openai_id)
    repeats = True

    def read(self, opening: str, source: TextSource, calls: Calls) -> Steps[None]:
        del opening
        yield from source.space()
        yield from read_calls(source, calls)
        yield from source.space()
        yield from source.literal("</tool_call>")
        source.record()

    def grammar(self, tools: Sequence[CallableTool], grammar: Grammar, *, many: bool) -> str:
        del many
        calls = any_of(call_object(tool, grammar) for tool in tools)
        end = grammar.text("\n</tool_call>")
        return f'"\\n" {calls} {end}'


class LlamaFormat:
    """`{"name": …, "parameters": …}` as the reply, or after `<|python_tag|>`; several are
    separated by semicolons: Llama 3.1 to 3.3."""

    openings: tuple[str, ...] = ("<|python_tag|>",)
    markers: tuple[str, ...] = ("<|python_tag|>",)
    bare = "{["
    new_id: Callable[[], str] = staticmethod(openai_id)
    repeats = False

    def read(self, opening: str, source: TextSource, calls: Calls) -> Steps[None]:
        while True:
            yield from source.space()
            yield from read_calls(source, calls, lazily=not opening)
            yield from source.space()
            if not (yield from source.literal(";")):
                return

    def grammar(self, tools: Sequence[CallableTool], grammar: Grammar, *, many: bool) -> str:
        call = any_of(call_object(tool, grammar, "parameters") for tool in tools)
        return f"{call} " + further_calls(f'"; " {call}') if many else call


class JsonFormat:
    """The reply is a call, or a list of calls, perhaps in a fence: what models write whose own
    form is not known, and others when they forget it."""

    openings: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    bare = "{[`"
    new_id: Callable[[], str] = staticmethod(openai_id)
    repeats = False

    def read(self, opening: str, source: TextSource, calls: Calls) -> Steps[None]:
        del opening
        yield from source.space()
        fenced = yield from source.literal("```")
        if fenced:
            yield from source.literal("json")
            yield from source.space()
        if (yield from source.peek()) not in ("{", "["):
            raise NotACall
        yield from read_calls(source, calls, lazily=True)
        if fenced:
            yield from source.space()
            yield from source.literal("```")
            source.record()

    def grammar(self, tools: Sequence[CallableTool], grammar: Grammar, *, many: bool) -> str:
        call = any_of(call_object(tool, grammar) for tool in tools)
        more = further_calls(f'", " {call}')
        return f'({call} | "[" {call} {more} "]")' if many else call
