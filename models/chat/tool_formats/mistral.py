"""`[TOOL_CALLS]` and a list of objects, or a name and `[ARGS]`: the models of Mistral AI."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from models.chat.lark import Grammar, any_of, further_calls
from models.chat.text_source import Steps, TextSource
from models.chat.tool_formats.base import CallableTool
from models.chat.tool_formats.calls import Calls, mistral_id
from models.chat.tool_formats.json_calls import call_object
from models.chat.tool_formats.json_reader import read_arguments, read_calls

_NAME = re.compile(r"[\w.\-]+")


class MistralFormat:
    """`named`: the newer form, `[TOOL_CALLS]name[ARGS]{…}`; both are read in any case."""

    openings: tuple[str, ...] = ("[TOOL_CALLS]",)
    markers: tuple[str, ...] = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")
    bare = ""
    new_id: Callable[[], str] = staticmethod(mistral_id)

    def __init__(self, *, named: bool) -> None:
        self.repeats = named

    def read(self, opening: str, source: TextSource, calls: Calls) -> Steps[None]:
        del opening
        yield from source.space()
        if (yield from source.peek()) in ("[", "{"):
            yield from read_calls(source, calls)
        else:
            yield from _read_named(source, calls)

    def grammar(self, tools: Sequence[CallableTool], grammar: Grammar, *, many: bool) -> str:
        if self.repeats:
            return any_of(
                f"{grammar.text(tool.name + '[ARGS]')} {grammar.schema(tool.schema)}"
                for tool in tools
            )
        call = any_of(call_object(tool, grammar) for tool in tools)
        more = " " + further_calls(f'", " {call}') if many else ""
        return f'" "? "[" {call}{more} "]"'


def _read_named(source: TextSource, calls: Calls) -> Steps[None]:
    name = yield from source.run(_NAME)
    yield from source.space()
    if (yield from source.literal("[CALL_ID]")):
        yield from source.run(_NAME)
    yield from source.literal("[ARGS]")
    yield from source.space()
    call = calls.begin(name)
    yield from read_arguments(source, call)
    call.end()
