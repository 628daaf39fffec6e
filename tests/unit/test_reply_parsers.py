"""Replies of every family taken apart, however they are cut into pieces."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.chat.format import ChatFormat
from models.chat.reply import ReplyParser
from models.types.generation import ChatPrompt, Message, Tool, ToolChoice
from tests import chat_templates as templates

WEATHER_SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"enum": ["C", "F"]},
        "where": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "tag": {"type": ["string", "null"]},
    },
}
TOOLS = (Tool("weather", "", json.dumps(WEATHER_SCHEMA)), Tool("now"))
HI = (Message("user", "Hi"),)
CHAT = ChatPrompt(HI, tools=TOOLS)
JSON_TEMPLATE = "{{ tools }}"

HERMES = ChatFormat.detect(templates.QWEN3, {})
GENERIC = ChatFormat.detect(templates.CHATML, {})
LLAMA = ChatFormat.detect(templates.LLAMA3_TOOLS, {})
MISTRAL = ChatFormat.detect(templates.MISTRAL_TOOLS, {})
DEEPSEEK = ChatFormat.detect(templates.DEEPSEEK_TOOLS, {})
CODER = ChatFormat.detect(templates.QWEN3_CODER, {})
HARMONY = ChatFormat.detect(templates.HARMONY, {})
JSON = ChatFormat.detect(JSON_TEMPLATE, {})
SEED = ChatFormat.detect("{{ tools }} </seed:think> <seed:tool_call> <function=", {})
MAGISTRAL = ChatFormat.detect(templates.MISTRAL_TOOLS, {"[THINK]": 1, "[/THINK]": 2})


@dataclass
class Reply:
    """All parts of a reply joined; a call is (name, arguments)."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list, compare=False)


def read(parser: ReplyParser, pieces: Iterable[str]) -> Reply:
    reply = Reply()
    parts = [*(parser.push(piece) for piece in pieces)]
    parts.append(parser.finish())
    for part in parts:
        reply.content += part.content
        reply.reasoning += part.reasoning
        for delta in part.tool_calls:
            if delta.id is not None:
                assert delta.index == len(reply.calls)
                assert delta.name is not None
                reply.calls.append((delta.name, ""))
                reply.ids.append(delta.id)
            assert delta.index == len(reply.calls) - 1
            name, arguments = reply.calls[-1]
            reply.calls[-1] = (name, arguments + delta.arguments)
    assert parser.called_tools == bool(reply.calls)
    assert not parser.in_reasoning
    return reply


def parser(chat_format: ChatFormat, rendered: str = "", prompt: ChatPrompt = CHAT) -> ReplyParser:
    made = chat_format.parser(prompt, rendered)
    assert made is not None
    return made


def splits(text: str) -> Iterator[list[str]]:
    """The whole, its characters, and every way to cut it in two."""
    yield [text]
    yield list(text)
    for cut in range(1, len(text)):
        yield [text[:cut], text[cut:]]


def hermes(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def deepseek(*calls: str) -> str:
    return "<｜tool▁calls▁begin｜>" + "\n".join(calls) + "<｜tool▁calls▁end｜>"


def fenced(name: str, arguments: str) -> str:
    return (
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```"
        "<｜tool▁call▁end｜>"
    )


BERN = '{"city": "Bern"}'
CALLS: dict[str, tuple[ChatFormat, str, Reply]] = {
    "hermes": (HERMES, hermes("weather", BERN), Reply(calls=[("weather", BERN)])),
    "hermes, text on both sides": (
        HERMES,
        f"Let me see.\n\n{hermes('now', '{}')}\nSo.",
        Reply("Let me see.\n\n\nSo.", calls=[("now", "{}")]),
    ),
    "hermes, several": (
        HERMES,
        f" {hermes('now', '{}')}\n{hermes('weather', BERN)}\n{hermes('now', '{}')}\n",
        Reply(calls=[("now", "{}"), ("weather", BERN), ("now", "{}")]),
    ),
    "hermes, arguments first": (
        HERMES,
        '<tool_call>{"arguments": {"city": "Bern"}, "name": "weather"}</tool_call>',
        Reply(calls=[("weather", BERN)]),
    ),
    "hermes, arguments as a string": (
        HERMES,
        r'<tool_call>{"name": "weather", "arguments": "{\"city\": \"\u00e9\ud83d\ude00\\n\"}"}',
        Reply(calls=[("weather", '{"city": "é😀\\n"}')]),
    ),
    "hermes, half a surrogate pair": (
        HERMES,
        r'<tool_call>{"name": "now", "arguments": "\ud83dx\ud83d\u0041\udc00"}</tool_call>',
        Reply(calls=[("now", "\ufffdx\ufffdA\ufffd")]),
    ),
    "hermes, no arguments": (
        HERMES,
        '<tool_call>{"name": "now"}</tool_call><tool_call>{"name":"now","arguments":null}',
        Reply(calls=[("now", "{}"), ("now", "{}")]),
    ),
    "hermes, nested and quoted": (
        HERMES,
        hermes("now", '{"a": [{"b": "}]\\"</tool_call>{["}, -1.5e3], "c": {"name": "x"}}'),
        Reply(calls=[("now", '{"a": [{"b": "}]\\"</tool_call>{["}, -1.5e3], "c": {"name": "x"}}')]),
    ),
    "hermes, further keys": (
        HERMES,
        '<tool_call>{"id": [1, "}"], "name": "now", "x": null, "arguments": {}}</tool_call>',
        Reply(calls=[("now", "{}")]),
    ),
    "hermes, a list": (
        HERMES,
        '<tool_call>[{"name": "now"}, {"name": "weather", "parameters": {}}]</tool_call>',
        Reply(calls=[("now", "{}"), ("weather", "{}")]),
    ),
    "hermes, an escaped name": (
        HERMES,
        r'<tool_call>{"n\u0061me": "n\u006fw", "arguments": {}}</tool_call>',
        Reply(calls=[("now", "{}")]),
    ),
    "hermes, cut off": (
        HERMES,
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Be',
        Reply(calls=[("weather", '{"city": "Be')]),
    ),
    "hermes, cut off in the end marker": (
        HERMES,
        hermes("weather", BERN).removesuffix("_call>"),
        Reply(calls=[("weather", BERN)]),
    ),
    "hermes, cut off before the name of the second": (
        HERMES,
        hermes("now", "{}") + '\n<tool_call>\n{"na',
        Reply(calls=[("now", "{}")]),
    ),
    "hermes, a list that is cut off": (
        HERMES,
        '<tool_call>[{"name": "now", "arguments": {}}, {"na',
        Reply(calls=[("now", "{}")]),
    ),
    "qwen coder, cut off in a parameter's marker": (
        CODER,
        "<tool_call>\n<function=now>\n<param",
        Reply(calls=[("now", "{")]),
    ),
    "qwen coder, cut off in the end marker": (
        CODER,
        "<tool_call>\n<function=now>\n</funct",
        Reply(calls=[("now", "{")]),
    ),
    "deepseek, cut off in the end marker": (
        DEEPSEEK,
        deepseek(fenced("now", "{}")).removesuffix("calls▁end｜>"),
        Reply(calls=[("now", "{}")]),
    ),
    "generic": (GENERIC, f"Well. {hermes('now', '{}')}", Reply("Well.", calls=[("now", "{}")])),
    "llama": (
        LLAMA,
        '{"name": "weather", "parameters": {"city": "Bern"}}',
        Reply(calls=[("weather", BERN)]),
    ),
    "llama, several": (
        LLAMA,
        '{"type": "function", "name": "now", "parameters": {}}; '
        '{"name": "weather", "parameters": {"city": "Bern"}}',
        Reply(calls=[("now", "{}"), ("weather", BERN)]),
    ),
    "llama, python tag": (
        LLAMA,
        'Ok.<|python_tag|>{"name": "now", "parameters": {}}',
        Reply("Ok.", calls=[("now", "{}")]),
    ),
    "mistral": (
        MISTRAL,
        '[TOOL_CALLS][{"name": "now", "arguments": {}}, '
        '{"name": "weather", "arguments": {"city": "Bern"}, "id": "abcdefghi"}]',
        Reply(calls=[("now", "{}"), ("weather", BERN)]),
    ),
    "mistral, named": (
        MISTRAL,
        'Ok.[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{"city": "Bern"}[TOOL_CALLS]now{}',
        Reply("Ok.", calls=[("weather", BERN), ("now", "{}")]),
    ),
    "deepseek": (
        DEEPSEEK,
        "</think>\n\nOk." + deepseek(fenced("now", "{}"), fenced("weather", BERN)),
        Reply("Ok.", calls=[("now", "{}"), ("weather", BERN)]),
    ),
    "deepseek 3.1": (
        DEEPSEEK,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
        "<｜tool▁call▁begin｜>weather<｜tool▁sep｜>" + BERN + "<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
        Reply(calls=[("now", "{}"), ("weather", BERN)]),
    ),
    "qwen coder": (
        CODER,
        'Ok.\n<tool_call>\n<function=weather>\n<parameter=city>\nA "b"\n</p>\n</parameter>\n'
        "<parameter=days>\n3\n</parameter>\n<parameter=unit>\nC\n</parameter>\n"
        "<parameter=where>\nnull\n</parameter>\n<parameter=tag>\n5\n</parameter>\n</function>\n"
        "</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        Reply(
            "Ok.",
            calls=[
                (
                    "weather",
                    '{"city": "A \\"b\\"\\n</p>", "days": 3, "unit": "C", "where": null, '
                    '"tag": "5"}',
                ),
                ("now", "{}"),
            ],
        ),
    ),
    "qwen coder, not what the schema says": (
        CODER,
        "<function=weather><parameter=days>three</parameter><parameter=other>NaN</parameter>"
        "<parameter=where>NaN</parameter></function>",
        Reply(calls=[("weather", '{"days": "three", "other": "NaN", "where": "NaN"}')]),
    ),
    "seed": (
        SEED,
        "<seed:think>Hm.</seed:think>\n<seed:tool_call>\n<function=weather>\n"
        "<parameter=city>Bern</parameter>\n</function>\n</seed:tool_call>",
        Reply("", "Hm.", [("weather", BERN)]),
    ),
    "qwen coder, as hermes": (CODER, hermes("now", "{}"), Reply(calls=[("now", "{}")])),
    "harmony": (
        HARMONY,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>"
        "Let me see.<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
        '<|constrain|>json<|message|>{"city": "Bern"}<|call|>',
        Reply("Let me see.", "Hm.", [("weather", BERN)]),
    ),
    "harmony, recipient first": (
        HARMONY,
        ' to=functions.now<|channel|>commentary json<|message|>{"a": 1}',
        Reply(calls=[("now", '{"a": 1}')]),
    ),
    "json": (JSON, '{"name": "now", "arguments": {"a": 1}}', Reply(calls=[("now", '{"a": 1}')])),
    "json in a fence": (
        JSON,
        '\n```json\n[{"name": "now", "parameters": {}},\n {"name": "now", "parameters": {}}]\n```',
        Reply(calls=[("now", "{}"), ("now", "{}")]),
    ),
    "json from a hermes model": (
        HERMES,
        '```json\n{"name": "weather", "arguments": {"city": "Bern"}}\n```',
        Reply(calls=[("weather", BERN)]),
    ),
}
ORDINARY = {
    "words": (HERMES, " Just words.\n"),
    "unknown tool": (HERMES, hermes("nothing", "{}")),
    "unknown tool after text": (HERMES, f"Ok.\n\n{hermes('nothing', '{}')} \n"),
    "no json": (HERMES, "<tool_call>now()</tool_call>"),
    "no name": (HERMES, '<tool_call>{"arguments": {"a": 1}}</tool_call>'),
    "empty object": (HERMES, "<tool_call>{}</tool_call>"),
    "a number for a name": (HERMES, '<tool_call>{"name": 5, "arguments": {}}</tool_call>'),
    "arguments twice": (HERMES, '<tool_call>{"arguments": {}, "arguments": {}, "name": "now"}'),
    "a wrong escape": (HERMES, r'<tool_call>{"name": "n\ow"}'),
    "a wrong code unit": (HERMES, r'<tool_call>{"name": "n\u00zzw"}'),
    "cut off in the marker": (HERMES, "Ok <tool_ca"),
    "cut off before the name": (HERMES, '<tool_call>\n{"na'),
    "cut off in the name": (HERMES, '<tool_call>{"name": "no'),
    "almost a marker": (HERMES, "a <tool_<tool_cal <tool"),
    "llama code": (LLAMA, "<|python_tag|>print(1)"),
    "llama other json": (LLAMA, '{"colour": "red", "name": "now"}'),
    "json without arguments": (JSON, '{"name": "now", "type": "x"}'),
    "json description of a tool": (JSON, '{"name": "now", "description": "The time."}'),
    "json after text": (JSON, 'So: {"name": "now", "arguments": {}}'),
    "json of a number": (JSON, "[1, 2]"),
    "code": (JSON, "```python\nprint(1)\n```"),
    "mistral, unknown": (MISTRAL, "[TOOL_CALLS]nothing[ARGS]{}"),
    "mistral, no calls": (MISTRAL, "[TOOL_CALLS] I would call now."),
    "deepseek, unknown": (DEEPSEEK, deepseek(fenced("nothing", "{}"))),
    "deepseek, no call": (DEEPSEEK, "<｜tool▁calls▁begin｜>now"),
    "qwen coder, unknown": (CODER, "<tool_call>\n<function=nothing>\n</function>\n</tool_call>"),
    "qwen coder, no function": (CODER, "<tool_call>\nnow\n</tool_call>"),
    "harmony without channels": (HARMONY, "Hello."),
}


@pytest.mark.parametrize(("chat_format", "text", "expected"), CALLS.values(), ids=CALLS)
def test_calls(chat_format: ChatFormat, text: str, expected: Reply) -> None:
    for pieces in splits(text):
        assert (
            read(parser(chat_format, "<think>" * text.startswith("</think>")), pieces) == expected
        )


@pytest.mark.parametrize(("chat_format", "text"), ORDINARY.values(), ids=ORDINARY)
def test_what_is_no_call_stays_as_it_was_written(chat_format: ChatFormat, text: str) -> None:
    for pieces in splits(text):
        assert read(parser(chat_format, "</think>"), pieces) == Reply(text)


OPENINGS = {
    HERMES: "<tool_call>",
    LLAMA: "<|python_tag|>",
    MISTRAL: "[TOOL_CALLS]",
    CODER: "<tool_call>",
}
FOLLOWED = {
    name: case
    for name, case in ORDINARY.items()
    if case[0] in OPENINGS and "in the name" not in name and "before the name" not in name
}
"""A string that was left open goes on: no call can follow in it."""


@pytest.mark.parametrize(("chat_format", "text"), FOLLOWED.values(), ids=FOLLOWED)
def test_a_call_is_found_after_what_is_none(chat_format: ChatFormat, text: str) -> None:
    call = OPENINGS[chat_format] + '{"name": "now", "arguments": {}}'
    expected = Reply(text.rstrip(), calls=[("now", "{}")])
    for pieces in splits(f"{text}{call}"):
        assert read(parser(chat_format, "</think>"), pieces) == expected


def test_a_call_that_breaks_after_its_name_ends_there() -> None:
    text = '<tool_call>{"name": "now", "arguments": {"a": 1} oops</tool_call>'
    for pieces in splits(text):
        assert read(parser(HERMES), pieces) == Reply(
            "oops</tool_call>", calls=[("now", '{"a": 1}')]
        )


# --- pieces arrive when they are known ----------------------------------------------------------


def test_names_and_arguments_come_as_they_are_written() -> None:
    reader = parser(HERMES)
    assert reader.push('Ok <tool_call>\n{"name": "weather').tool_calls == ()
    [begun] = reader.push('"').tool_calls
    assert (begun.index, begun.name, begun.arguments) == (0, "weather", "")
    assert begun.id is not None
    assert re.fullmatch("call_[0-9a-f]{24}", begun.id)
    pieces = [', "arguments": {"ci', 'ty": "B', "er", 'n"}', "}\n</tool_call>"]
    found = [reader.push(piece).tool_calls for piece in pieces]
    assert [[(d.index, d.arguments, d.id, d.name) for d in deltas] for deltas in found] == [
        [(0, '{"ci', None, None)],
        [(0, 'ty": "B', None, None)],
        [(0, "er", None, None)],
        [(0, 'n"}', None, None)],
        [],
    ]


def test_values_of_text_parameters_come_as_they_are_written() -> None:
    reader = parser(CODER)
    reader.push("<tool_call>\n<function=weather>\n<parameter=city>\nBe")
    found = [reader.push(piece).tool_calls for piece in ("r\n", "n")]
    assert [[delta.arguments for delta in deltas] for deltas in found] == [["r"], ["\\nn"]]


def test_content_comes_at_once() -> None:
    reader = parser(HERMES, "</think>")
    assert [reader.push(c).content for c in ("a <", "b", " c", " ", "<tool", "s>")] == [
        "a", " <b", " c", "", "", " <tools>",
    ]  # fmt: skip


def test_ids() -> None:
    text = '[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}}]'
    first, second = read(parser(MISTRAL), [text]).ids
    assert re.fullmatch("[a-zA-Z0-9]{9}", first)
    assert first != second


def test_only_the_tools_to_choose_from_are_known() -> None:
    prompt = ChatPrompt(HI, tools=TOOLS, tool_choice=ToolChoice("auto", ("weather",)))
    text = hermes("now", "{}")
    assert read(parser(HERMES, prompt=prompt), [text]) == Reply(text)


# --- reasoning ----------------------------------------------------------------------------------

REASONING = {
    "written": (HERMES, "", "<think>\nHm.\n\n</think>\n\nYes.\n", Reply("Yes.\n", "Hm.")),
    "opened by the template": (
        HERMES,
        "…<think>\n",
        "\nHm.\n</think>\n\nYes.",
        Reply("Yes.", "Hm."),
    ),
    "closed by the template": (HERMES, "…<think>\n\n</think>\n\n", "Yes.", Reply("Yes.")),
    "closed, and yet": (HERMES, "…</think>\n\n", "<think>a</think>", Reply("<think>a</think>")),
    "none": (HERMES, "", "\n Yes.", Reply("\n Yes.")),
    "none at the beginning": (HERMES, "", "Yes. <think>a</think>", Reply("Yes. <think>a</think>")),
    "empty": (HERMES, "", "\n<think>\n\n</think>\n\nYes.", Reply("Yes.")),
    "cut off": (HERMES, "", "<think>\nHm. </thi", Reply("", "Hm. </thi")),
    "indented answer": (HERMES, "<think>", "Hm.</think>\n\n  x", Reply("  x", "Hm.")),
    "mentions a call": (
        HERMES,
        "<think>",
        f"Perhaps {hermes('now', '{}')}?</think>{hermes('now', '{}')}",
        Reply("", f"Perhaps {hermes('now', '{}')}?", [("now", "{}")]),
    ),
    "magistral": (MAGISTRAL, "", "[THINK]Hm.[/THINK]Yes.", Reply("Yes.", "Hm.")),
    "harmony": (
        HARMONY,
        "",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
        Reply("Yes.", "Hm."),
    ),
    "harmony, cut off": (HARMONY, "", "<|channel|>analysis<|message|>Hm. ", Reply("", "Hm.")),
    "harmony, an unknown recipient": (
        HARMONY,
        "",
        "<|channel|>commentary to=python<|message|>1<|call|>",
        Reply("<|channel|>commentary to=python<|message|>1"),
    ),
}


@pytest.mark.parametrize(
    ("chat_format", "rendered", "text", "expected"), REASONING.values(), ids=REASONING
)
def test_reasoning(chat_format: ChatFormat, rendered: str, text: str, expected: Reply) -> None:
    for pieces in splits(text):
        assert read(parser(chat_format, rendered), pieces) == expected


@pytest.mark.parametrize(
    ("chat_format", "opening", "end"),
    [
        (HERMES, "<think>", "</think>"),
        (MAGISTRAL, "[THINK]", "[/THINK]"),
        (HARMONY, "<|channel|>analysis<|message|>", "<|end|>"),
    ],
)
def test_while_it_reasons(chat_format: ChatFormat, opening: str, end: str) -> None:
    reader = parser(chat_format)
    states = []
    for piece in (opening[:-1], opening[-1], "a", end[:-1], end[-1], "b"):
        reader.push(piece)
        states.append(reader.in_reasoning)
    assert states == [False, True, True, True, False, False]


def test_it_reasons_from_the_beginning_where_the_template_says_so() -> None:
    assert parser(HERMES, "<think>\n").in_reasoning
    assert not parser(HERMES, "</think>\n").in_reasoning


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<think>a", Reply("Yes.", "b")),
        ("<think>a</think> So", Reply("b</think>Yes.")),
        ("So", Reply("b</think>Yes.")),
    ],
)
def test_a_begun_answer_tells_whether_it_reasons(content: str, expected: Reply) -> None:
    prompt = ChatPrompt((*HI, Message("assistant", content)), continue_final=True)
    made = HERMES.parser(prompt, content)
    reply = Reply("b</think>Yes.") if made is None else read(made, ["b</think>Yes."])
    assert reply == expected


# --- any text -----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
arguments = st.dictionaries(st.text(), json_values, max_size=4)
FORMATS = [HERMES, LLAMA, MISTRAL, DEEPSEEK, JSON]


def written(chat_format: ChatFormat, value: dict[str, Any], indent: int | None, ascii: bool) -> str:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    call = f'{{"name": "now", "arguments": {text}}}'
    forms = {HERMES: f"<tool_call>{call}</tool_call>", MISTRAL: f"[TOOL_CALLS][{call}]"}
    return (
        deepseek(fenced("now", text)) if chat_format is DEEPSEEK else forms.get(chat_format, call)
    )


@pytest.mark.parametrize(
    "chat_format", FORMATS, ids=["hermes", "llama", "mistral", "deepseek", "json"]
)
@settings(max_examples=60, deadline=None)
@given(value=arguments, data=st.data())
def test_arguments_are_those_that_were_written(
    chat_format: ChatFormat, value: dict[str, Any], data: st.DataObject
) -> None:
    indent = data.draw(st.sampled_from([None, 2]))
    text = written(chat_format, value, indent, data.draw(st.booleans()))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    reply = read(parser(chat_format, "</think>"), pieces)
    assert [name for name, _ in reply.calls] == ["now"]
    assert json.loads(reply.calls[0][1]) == value
    assert reply.content == ""


@settings(max_examples=100, deadline=None)
@given(value=arguments)
def test_arguments_in_a_string_are_those_that_were_written(value: dict[str, Any]) -> None:
    call = json.dumps({"name": "now", "arguments": json.dumps(value)})
    [(_, found)] = read(parser(HERMES), [f"<tool_call>{call}</tool_call>"]).calls
    assert json.loads(found) == value or "\ufffd" in found


PIECES = [
    "<tool_call>", "</tool_call>", "<think>", "</think>", '{"name": "', "now", '", "arguments": ',
    '{"a": 1}', "}", "{", "[", "]", '"', "\\", ",", ":", " ", "\n", ";", "```json", "```", "x",
    "<function=", "now>", "<parameter=a>", "</parameter>", "</function>", "[TOOL_CALLS]", "[ARGS]",
    "<|python_tag|>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>",
    "<|channel|>", "analysis", "final", " to=functions.now", "<|message|>", "<|end|>", "<|start|>",
]  # fmt: skip
ALL_FORMATS = [HERMES, GENERIC, LLAMA, MISTRAL, DEEPSEEK, CODER, HARMONY, JSON, MAGISTRAL, SEED]


@settings(max_examples=400, deadline=None)
@given(
    chat_format=st.sampled_from(ALL_FORMATS),
    pieces=st.lists(st.sampled_from(PIECES), max_size=25),
    rendered=st.sampled_from(["", "<think>\n", "</think>"]),
)
def test_pieces_of_calls_never_depend_on_where_they_are_cut(
    chat_format: ChatFormat, pieces: list[str], rendered: str
) -> None:
    text = "".join(pieces)
    whole = read(parser(chat_format, rendered), [text])
    assert read(parser(chat_format, rendered), text) == whole
    assert read(parser(chat_format, rendered), pieces) == whole


@settings(max_examples=300, deadline=None)
@given(
    chat_format=st.sampled_from([f for f in ALL_FORMATS if f is not HARMONY]),
    pieces=st.lists(st.sampled_from(PIECES), max_size=25),
)
def test_without_a_call_all_of_it_is_content(chat_format: ChatFormat, pieces: list[str]) -> None:
    text = "".join(pieces)
    reply = read(parser(chat_format, "</think>"), [text])
    if not reply.calls and not reply.reasoning:
        assert reply.content == text


# --- hostile replies ----------------------------------------------------------------------------

SIZE = 2000
HOSTILE = {
    "braces": "{",
    "open calls": "<tool_call>",
    "nested calls": '<tool_call>{"a":',
    "nested in strings": '<tool_call>{"a":"',
    "calls and space": "<tool_call>      ",
    "arguments that nest": '<tool_call>{"arguments":{"a":[' + "[" * 20,
    "half markers": "<tool_cal",
    "escapes": '<tool_call>{"' + "\\u00e9" * 10,
    "space": " \n",
    "white space and words": "  x  ",
    "python tags": "<|python_tag|>{",
    "lists": '[TOOL_CALLS][{"a":[',
    "separators": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    "functions": "<function=now><parameter=a>",
    "parameters": "<parameter=a>\n",
    "channels": "<|channel|>analysis<|message|>",
    "thoughts": "<think>",
    "fences": "```json",
}


def work(chat_format: ChatFormat, text: str, size: int) -> int:
    """Calls of functions, and characters copied by them, while a text is read piece by piece."""
    count = 0

    def watch(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += 1
        if event == "call" and frame.f_code.co_name == "feed":
            source = frame.f_locals["self"]
            count += len(source._text) - source._at

    reader = parser(chat_format)
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    previous = sys.getprofile()
    sys.setprofile(watch)
    try:
        for piece in pieces:
            reader.push(piece)
        reader.finish()
    finally:
        sys.setprofile(previous)
    return count


@pytest.mark.parametrize(
    "chat_format", ALL_FORMATS, ids=lambda f: f.tool_formats[0].__class__.__name__
)
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_work_is_in_proportion_to_the_text(chat_format: ChatFormat, unit: str) -> None:
    short = unit * (SIZE // len(unit))
    assert work(chat_format, short * 4, 5) < 4.5 * work(chat_format, short, 5) + 500


def test_a_megabyte_of_braces() -> None:
    text = "{" * 2**20
    assert read(parser(JSON), [text]).content == text
    begun = '<tool_call>{"name": "now", "arguments": '
    [(_, found)] = read(parser(HERMES), [begun, text]).calls
    assert found == text
