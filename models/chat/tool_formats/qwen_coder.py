"""`<function=name>` with a `<parameter=name>` for every argument: Qwen3-Coder, Qwen 3.5, Seed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.chat.lark import Grammar, any_of
from models.chat.text_source import Markers, NotACall, Steps, TextSource
from models.chat.tool_formats.base import CallableTool
from models.chat.tool_formats.calls import Call, Calls, openai_id
from models.chat.tool_formats.json_calls import HermesFormat
from models.structured.plain_texts import text_of

_VALUE_END = Markers(["\n</parameter>", "</parameter>"])
_NAME = re.compile(r"[^<>\s]+")
_HERMES = HermesFormat()
_COMPOSED = {"anyOf", "oneOf", "allOf", "$ref", "const"}


class QwenCoderFormat:
    """Values of strings are plain text, all others JSON. Calls as Hermes writes them are read too:
    models that know both forms mix them up."""

    bare = ""
    new_id: Callable[[], str] = staticmethod(openai_id)
    repeats = True

    def __init__(self, begin: str = "<tool_call>", end: str = "</tool_call>") -> None:
        self.openings: tuple[str, ...] = (begin, "<function=")
        self.markers: tuple[str, ...] = (begin, end)

    def read(self, opening: str, source: TextSource, calls: Calls) -> Steps[None]:
        begin, end = self.markers
        if opening == begin:
            yield from source.space()
            if (yield from source.peek()) in ("{", "["):
                yield from _HERMES.read(opening, source, calls)
                return
            yield from source.expect("<function=")
        name = yield from source.run(_NAME)
        yield from source.expect(">")
        call = calls.begin(name)
        call.arguments("{")
        yield from _read_parameters(source, call, calls.properties(name))
        call.arguments("}")
        call.end()
        yield from source.space()
        yield from source.literal(end)
        source.record()

    def grammar(self, tools: Sequence[CallableTool], grammar: Grammar, *, many: bool) -> str:
        del many
        functions = any_of(_function(tool, grammar) for tool in tools)
        end = grammar.text(f"\n{self.markers[1]}")
        return f'"\\n" {functions} {end}'


# --- reading ------------------------------------------------------------------------------------


def _read_parameters(source: TextSource, call: Call, schemas: Mapping[str, Any]) -> Steps[None]:
    separator = ""
    while True:
        yield from source.space()
        if (yield from source.expect("<parameter=", "</function>")) == "</function>":
            return
        name = yield from source.run(_NAME)
        yield from source.expect(">")
        yield from source.literal("\n")
        call.arguments(f"{separator}{_quoted(name)}: ")
        separator = ", "
        if _is_text(schemas.get(name)):
            yield from _read_text(source, call)
        else:
            yield from _read_json(source, call)


def _read_text(source: TextSource, call: Call) -> Steps[None]:
    call.arguments('"')
    end = yield from source.until(_VALUE_END, lambda text: call.arguments(_quoted(text)[1:-1]))
    if not end:
        raise NotACall
    call.arguments('"')


def _read_json(source: TextSource, call: Call) -> Steps[None]:
    parts: list[str] = []
    if not (yield from source.until(_VALUE_END, parts.append)):
        raise NotACall
    text = "".join(parts).strip()
    call.arguments(text if _is_json(text) else _quoted(text))


def _is_text(schema: Any) -> bool:
    """A value of this schema is a string as it stands, or nothing is known of it."""
    if not isinstance(schema, dict):
        return True
    kinds = schema.get("type")
    if kinds is None:
        choices = schema.get("enum")
        if isinstance(choices, list):
            return all(isinstance(choice, str) for choice in choices)
        return not _COMPOSED & schema.keys()
    return "string" in kinds if isinstance(kinds, list) else kinds == "string"


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# --- constraining -------------------------------------------------------------------------------


def _function(tool: CallableTool, grammar: Grammar) -> str:
    properties = tool.schema.get("properties")
    if isinstance(properties, dict):
        required = tool.schema.get("required") or []
        shared = {k: v for k, v in tool.schema.items() if k in ("$defs", "definitions")}
        parameters = " ".join(
            _parameter(name, schema, shared, grammar) + ("" if name in required else "?")
            for name, schema in properties.items()
        )
    else:
        name = grammar.terminal(r"/[^<>\s]+/")
        value = grammar.through("\n</parameter>\n")
        parameters = f'("<parameter=" {name} ">\\n" {value})*'
    head = _quoted(f"<function={tool.name}>\n")
    return f'{head} {parameters} "</function>"'


def _parameter(name: str, schema: Any, shared: dict[str, Any], grammar: Grammar) -> str:
    end = "\n</parameter>\n"
    if choices := _only_texts(schema):
        value = any_of(grammar.text(choice + end) for choice in choices)
    elif _is_text(schema):
        text = text_of(schema) if isinstance(schema, dict) else ""
        value = grammar.matching(text, end) if text else grammar.through(end)
    else:
        value = f"{grammar.schema({**schema, **shared})} {_quoted(end)}"
    head = _quoted(f"<parameter={name}>\n")
    return f"({head} {value})"


def _only_texts(schema: Any) -> list[str]:
    """All that a value which is plain text may be; none where it may be any text, or is none."""
    if not isinstance(schema, dict) or not _is_text(schema):
        return []
    choices = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return [choice for choice in choices if isinstance(choice, str)]
