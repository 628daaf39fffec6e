"""Which replies the grammar of a prompt allows, in every family's syntax."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from models.chat.format import ChatFormat
from models.chat.lark import MAX_CALLS
from models.errors import InvalidInputError, ModelError
from models.structured.compiler import GrammarCompiler
from models.types.generation import ChatPrompt, Message, OutputFormat, Tool, ToolChoice
from tests import chat_templates as templates

END = 256


class Bytes:
    """A token per byte, one that ends a reply, and a model's control tokens."""

    infill_tokens: tuple[int, int, int] | None = None
    end_tokens = frozenset({END})
    bos: int | None = None

    def __init__(self, control_texts: tuple[str, ...]) -> None:
        self.control_tokens: Mapping[str, int] = {
            text: END + 1 + index for index, text in enumerate(control_texts)
        }
        self.pieces = (*(bytes([byte]) for byte in range(256)), *[b""] * (1 + len(control_texts)))
        self.size = len(self.pieces)
        self.longest_piece = 16

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        del add_special
        if not parse_special or not self.control_tokens:
            return list(text.encode())
        parts = re.split("(" + "|".join(map(re.escape, self.control_tokens)) + ")", text)
        return [
            token
            for part in parts
            for token in (
                [self.control_tokens[part]] if part in self.control_tokens else part.encode()
            )
        ]


class Model:
    """A model's format, and what its vocabulary lets a grammar accept."""

    def __init__(self, template: str, *control_texts: str) -> None:
        self.vocabulary = Bytes(control_texts)
        self.format = ChatFormat.detect(template, self.vocabulary.control_tokens)
        self.compiler = GrammarCompiler(self.vocabulary)

    def allows(
        self,
        text: str,
        prompt: ChatPrompt,
        output_format: OutputFormat | None = None,
        rendered: str = "",
    ) -> bool:
        """This text may be the whole reply."""
        grammar = self.format.grammar(prompt, output_format, rendered)
        assert grammar is not None
        constraint = self.compiler.compile(grammar, "tools")
        try:
            for token in self.vocabulary.tokenize(text, add_special=False, parse_special=True):
                constraint.accept(token)
        except ModelError:
            return False
        if constraint.finished:
            return True
        logits = np.zeros(self.vocabulary.size, np.float32)
        constraint.mask(logits)
        return bool(np.isfinite(logits[END]))


DEEPSEEK_TOKENS = (
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>", "<｜tool▁sep｜>",
)  # fmt: skip
HARMONY_TOKENS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|constrain|>")

PLAIN_TEMPLATE = "{{ tools }} <tool_call>"
HERMES = Model(PLAIN_TEMPLATE)
HERMES_TOKENS = Model(PLAIN_TEMPLATE, "<tool_call>", "</tool_call>")
QWEN3 = Model(templates.QWEN3)
LLAMA = Model(templates.LLAMA3_TOOLS, "<|python_tag|>")
MISTRAL = Model(templates.MISTRAL_TOOLS, "[TOOL_CALLS]")
MISTRAL_NAMED = Model("{{ tools }} [TOOL_CALLS] [ARGS]", "[TOOL_CALLS]", "[ARGS]")
MAGISTRAL = Model(templates.MISTRAL_TOOLS, "[TOOL_CALLS]", "[THINK]", "[/THINK]")
DEEPSEEK = Model(templates.DEEPSEEK_TOOLS.replace("<think>", ""), *DEEPSEEK_TOKENS)
DEEPSEEK_31 = Model("{{ tools }} <｜tool▁calls▁begin｜>", *DEEPSEEK_TOKENS)
CODER = Model(templates.QWEN3_CODER)
HARMONY = Model(templates.HARMONY, *HARMONY_TOKENS)
JSON = Model("{{ tools }}")

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = Tool("weather", "", json.dumps(SCHEMA))
STRICT = Tool("weather", "", json.dumps(SCHEMA), strict=True)
NOW = Tool("now")
HI = (Message("user", "Hi"),)
GOOD, WRONG = '{"city": "Bern", "days": 2}', '{"city": 5}'


def prompt(*tools: Tool, mode: Any = "required", many: bool = True, names: Any = ()) -> ChatPrompt:
    choice = ToolChoice(mode, tuple(names))
    return ChatPrompt(HI, tools=tools, tool_choice=choice, parallel_tool_calls=many)


def hermes(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def llama(name: str, arguments: str) -> str:
    return f'{{"name": "{name}", "parameters": {arguments}}}'


def as_json(name: str, arguments: str) -> str:
    return f'{{"name": "{name}", "arguments": {arguments}}}'


def mistral(name: str, arguments: str) -> str:
    return f"[TOOL_CALLS][{as_json(name, arguments)}]"


def named(name: str, arguments: str) -> str:
    return f"[TOOL_CALLS]{name}[ARGS]{arguments}"


def deepseek(name: str, arguments: str) -> str:
    return (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n"
        f"{arguments}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    )


def deepseek_31(name: str, arguments: str) -> str:
    return (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    )


def harmony(name: str, arguments: str) -> str:
    return f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{arguments}"


def coder(name: str, arguments: str) -> str:
    parameters = "".join(
        f"<parameter={key}>\n{value if isinstance(value, str) else json.dumps(value)}"
        "\n</parameter>\n"
        for key, value in json.loads(arguments).items()
    )
    return f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


FAMILIES: dict[str, tuple[Model, Any, str]] = {
    "hermes": (HERMES, hermes, "\n"),
    "hermes, control tokens": (HERMES_TOKENS, hermes, "\n"),
    "qwen3": (QWEN3, hermes, ""),
    "llama": (LLAMA, llama, "; "),
    "mistral, named": (MISTRAL_NAMED, named, ""),
    "json": (JSON, as_json, ""),
    "mistral": (MISTRAL, mistral, ""),
    "deepseek": (DEEPSEEK, deepseek, ""),
    "deepseek 3.1": (DEEPSEEK_31, deepseek_31, ""),
    "qwen coder": (CODER, coder, "\n"),
    "harmony": (HARMONY, harmony, ""),
}
BLOCKS = {"json", "mistral", "deepseek", "deepseek 3.1", "harmony"}
"""Several calls are no repetition of one: see `test_several_calls_in_one_block`."""

family = pytest.mark.parametrize(("model", "call", "between"), FAMILIES.values(), ids=FAMILIES)


# --- calls that must be made --------------------------------------------------------------------


@family
def test_a_required_call(model: Model, call: Any, between: str) -> None:
    wanted = prompt(WEATHER, NOW)
    assert model.allows(call("weather", GOOD), wanted)
    assert model.allows(call("weather", '{"city": "Bern"}'), wanted)
    assert model.allows(call("now", "{}"), wanted)
    assert model.allows(call("now", '{"any": "thing"}'), wanted)
    assert not model.allows("It rains.", wanted)
    assert not model.allows("", wanted)
    assert not model.allows(call("weather", "{}"), wanted)
    assert not model.allows(call("nothing", "{}"), wanted)
    if model is not CODER:  # whose texts are anything
        assert not model.allows(call("weather", WRONG), wanted)
    assert not model.allows(call("weather", '{"city": "Bern", "days": "two"}'), wanted)


@family
def test_a_named_call(model: Model, call: Any, between: str) -> None:
    wanted = prompt(WEATHER, NOW, names=("now",))
    assert model.allows(call("now", "{}"), wanted)
    assert not model.allows(call("weather", GOOD), wanted)


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - BLOCKS))
def test_several_calls(name: str) -> None:
    model, call, between = FAMILIES[name]
    two = call("now", "{}") + between + call("weather", GOOD)
    assert model.allows(two, prompt(WEATHER, NOW))
    assert not model.allows(two, prompt(WEATHER, NOW, many=False))
    assert model.allows(call("now", "{}"), prompt(WEATHER, NOW, many=False))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (JSON, f"[{as_json('now', '{}')}, {as_json('weather', GOOD)}]"),
        (MISTRAL, f"[TOOL_CALLS][{as_json('now', '{}')}, {as_json('weather', GOOD)}]"),
        (
            DEEPSEEK_31,
            deepseek_31("now", "{}").removesuffix("<｜tool▁calls▁end｜>")
            + deepseek_31("weather", GOOD).removeprefix("<｜tool▁calls▁begin｜>"),
        ),
    ],
    ids=["json", "mistral", "deepseek"],
)
def test_several_calls_in_one_block(model: Model, text: str) -> None:
    assert model.allows(text, prompt(WEATHER, NOW))
    assert not model.allows(text, prompt(WEATHER, NOW, many=False))


@family
def test_what_the_grammar_allows_the_parser_reads(model: Model, call: Any, between: str) -> None:
    parser = model.format.parser(prompt(WEATHER, NOW), "</think>")
    assert parser is not None
    parts = [parser.push(call("weather", GOOD)), parser.finish()]
    deltas = [delta for part in parts for delta in part.tool_calls]
    assert deltas[0].name == "weather"
    assert json.loads("".join(delta.arguments for delta in deltas)) == json.loads(GOOD)
    assert "".join(part.content for part in parts) == ""


# --- calls that may be made ---------------------------------------------------------------------

LAZY = {name: case for name, case in FAMILIES.items() if name not in ("llama", "json", "harmony")}


@pytest.mark.parametrize(("model", "call", "between"), LAZY.values(), ids=LAZY)
def test_a_strict_call_once_begun_is_held_to(model: Model, call: Any, between: str) -> None:
    wanted = prompt(STRICT, NOW, mode="auto")
    good = call("weather", GOOD)
    assert model.allows("Just { words <tool_ } [TOOL", wanted)
    assert model.allows("", wanted)
    assert model.allows(f"I look.\n{good}", wanted)
    assert model.allows(f"I look.\n{good}\nAnd {call('now', '{}')} so.", wanted)
    assert not model.allows(f"I look.{call('weather', '{}')}", wanted)
    assert not model.allows(f"{good} and {call('nothing', '{}')}", wanted)


@pytest.mark.parametrize(("model", "call", "between"), LAZY.values(), ids=LAZY)
def test_one_call_at_most(model: Model, call: Any, between: str) -> None:
    wanted = prompt(WEATHER, NOW, mode="auto", many=False)
    one = call("now", "{}")
    assert model.allows("Words.", wanted)
    assert model.allows(f"Well. {one} Yes.", wanted)
    assert not model.allows(f"{one} {one}", wanted)
    if model is not CODER:
        assert model.allows(call("weather", WRONG), wanted)  # it is not strict


@pytest.mark.parametrize(("model", "call"), [(LLAMA, llama), (JSON, as_json)])
def test_a_call_that_is_the_whole_reply(model: Model, call: Any) -> None:
    wanted = prompt(STRICT, mode="auto")
    assert model.allows("Just words.", wanted)
    assert model.allows("", wanted)
    assert model.allows(call("weather", GOOD), wanted)
    assert not model.allows(call("weather", WRONG), wanted)
    assert not model.allows(" " + call("weather", WRONG), wanted)
    assert model.allows("`code`", wanted) is (model is LLAMA)


def test_a_strict_call_in_channels() -> None:
    wanted = prompt(STRICT, mode="auto")
    analysis = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    assert HARMONY.allows(analysis + harmony("weather", GOOD), wanted)
    assert HARMONY.allows(analysis + "<|channel|>final<|message|>Yes.", wanted)
    assert HARMONY.allows("<|channel|>final<|message|>Yes.", wanted)
    assert not HARMONY.allows(analysis + harmony("weather", WRONG), wanted)
    assert not HARMONY.allows("Yes.", wanted)


@pytest.mark.parametrize(
    "unconstrained",
    [
        prompt(WEATHER, NOW, mode="auto"),
        prompt(STRICT, mode="none"),
        prompt(mode="required"),
        prompt(mode="auto", many=False),
    ],
    ids=["auto", "none", "no tools", "no tools at once"],
)
def test_nothing_to_constrain(unconstrained: ChatPrompt) -> None:
    assert QWEN3.format.grammar(unconstrained, None, "") is None
    assert HARMONY.format.grammar(unconstrained, None, "") is None


# --- parameters ---------------------------------------------------------------------------------


def test_parameters_of_qwen_coder() -> None:
    schema = {
        "properties": {
            "unit": {"enum": ["C", "F"]},
            "where": {"$ref": "#/$defs/place"},
            "note": {},
            "kind": {"type": "string", "const": "k"},
            "mark": {"type": ["string", "null"], "enum": ["m", None]},
        },
        "required": ["unit", "where"],
        "$defs": {"place": {"type": "object", "properties": {"x": {"type": "integer"}},
                            "required": ["x"], "additionalProperties": False}},
    }  # fmt: skip
    wanted = prompt(Tool("f", "", json.dumps(schema)))
    assert CODER.allows(coder("f", '{"unit": "F", "where": {"x": 1}}'), wanted)
    assert CODER.allows(coder("f", '{"unit": "F", "where": {"x": 1}, "note": "a\\n<b>"}'), wanted)
    assert not CODER.allows(coder("f", '{"unit": "K", "where": {"x": 1}}'), wanted)
    assert not CODER.allows(coder("f", '{"unit": "F", "where": {"y": 1}}'), wanted)
    assert CODER.allows(coder("f", '{"unit": "F", "where": {"x": 1}, "kind": "k"}'), wanted)
    assert not CODER.allows(coder("f", '{"unit": "F", "where": {"x": 1}, "kind": "l"}'), wanted)
    assert not CODER.allows(coder("f", '{"unit": "F", "where": {"x": 1}, "mark": "None"}'), wanted)
    assert not CODER.allows(coder("f", '{"where": {"x": 1}}'), wanted)


@pytest.mark.parametrize(
    ("schema", "fitting", "other"),
    [
        ({"minLength": 2, "maxLength": 3.0}, ["ab", "a\nb"], ["a", "abcd"]),
        ({"maxLength": 0}, [""], ["a"]),
        ({"pattern": "b+c"}, ["bc", "a\nbbc d"], ["bd", ""]),
        ({"pattern": "^a/\\d"}, ["a/1", "a/1b"], ["ba/1", "a/b"]),
        ({"pattern": "[|^$]x$"}, ["|x", "a^x"], ["|xy", "x"]),
        ({"pattern": "^(ab|c)*$", "minLength": 1}, ["ab", "cab"], ["", "a", "cb"]),
        ({"pattern": "\\$"}, ["a$b"], ["ab"]),
        ({"pattern": "a|b"}, ["xa", "bx"], ["x"]),
        ({"pattern": "^a|b$"}, ["ax", "xb", "any"], []),
        ({"pattern": "a$\\$"}, ["any"], []),
    ],
)
def test_texts_of_qwen_coder(schema: Any, fitting: list[str], other: list[str]) -> None:
    properties = {"properties": {"a": {"type": "string", **schema}}, "required": ["a"]}
    wanted = prompt(Tool("f", "", json.dumps(properties), strict=True))
    for text in fitting:
        assert CODER.allows(coder("f", json.dumps({"a": text})), wanted)
    for text in other:
        assert not CODER.allows(coder("f", json.dumps({"a": text})), wanted)


UNSUPPORTED = json.dumps({"type": "object", "not": {"required": ["a"]}})


def test_a_strict_schema_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(InvalidInputError) as refused:
        HERMES.format.grammar(prompt(Tool("f", "", UNSUPPORTED, strict=True)), None, "")
    assert refused.value.param == "tools"


UNCOMPILABLE = json.dumps({"properties": {"a": {"type": "string", "format": "password"}}})
"""Well-formed, with known keywords alone: only the compiler knows that it lacks the format."""


@pytest.mark.parametrize("parameters", [UNSUPPORTED, UNCOMPILABLE])
def test_another_tools_arguments_are_any_object_then(parameters: str) -> None:
    wanted = prompt(Tool("f", "", parameters))
    assert HERMES.allows(hermes("f", '{"a": [1]}'), wanted)
    assert not HERMES.allows(hermes("f", "[1]"), wanted)


@pytest.mark.parametrize("parameters", ["", "{}", '{"properties": {}}', '{"description": "none"}'])
def test_arguments_are_an_object_in_any_case(parameters: str) -> None:
    wanted = prompt(Tool("f", "", parameters))
    assert HERMES.allows(hermes("f", "{}"), wanted)
    assert not HERMES.allows(hermes("f", "5"), wanted)


# --- reasoning, and formats of the answer -------------------------------------------------------

YES_OR_NO = OutputFormat("choice", '["yes", "no"]')
NO_TOOLS = ChatPrompt(HI)


@pytest.mark.parametrize(
    ("model", "opening", "end"),
    [(QWEN3, "<think>", "</think>"), (MAGISTRAL, "[THINK]", "[/THINK]")],
)
def test_reasoning_comes_first_and_is_free(model: Model, opening: str, end: str) -> None:
    def allows(text: str, rendered: str) -> bool:
        return model.allows(text, NO_TOOLS, YES_OR_NO, rendered)

    for start, rendered in ((opening, ""), ("", opening + "\n")):
        assert allows(f"{start}\nPerhaps <b> { {} }.\n{end}\n\nyes", rendered)
        assert allows(f"{start}{end}no", rendered)
        assert not allows(f"{start}yes", rendered)
        assert not allows(f"{start}Hm.{end}perhaps", rendered)
        assert not allows(f"{start}Hm.{end}yes{end}yes", rendered)
    assert allows("yes", "")
    assert not allows("yes", opening)
    assert allows("yes", end + "\n\n")
    assert not allows(f"{opening}Hm.{end}yes", end + "\n\n")


def test_a_required_call_after_reasoning() -> None:
    wanted = prompt(WEATHER)
    call = hermes("weather", GOOD)
    assert QWEN3.allows(f"<think>\nHm.\n</think>\n\n{call}", wanted)
    assert QWEN3.allows(f"Hm.\n</think>\n\n{call}", wanted, rendered="<think>\n")
    assert not QWEN3.allows(f"<think>\nHm.\n</think>\n\nNo. {call}", wanted)


def test_a_strict_call_is_not_looked_for_in_reasoning() -> None:
    wanted = prompt(STRICT, mode="auto")
    rest = f"Or <tool_call>now?</think>{hermes('weather', GOOD)}"
    assert QWEN3.allows(rest, wanted, rendered="<think>")
    assert not QWEN3.allows(f"Hm.</think>{hermes('weather', WRONG)}", wanted, rendered="<think>")


def test_a_forced_end_of_reasoning_fits() -> None:
    for model in (QWEN3, MAGISTRAL):
        end = model.format.end_of_reasoning(NO_TOOLS)
        assert end is not None
        reasoning = model.format.reasoning
        assert reasoning is not None
        assert model.allows(f"Hm.{end}yes", NO_TOOLS, YES_OR_NO, reasoning.begin)
    start = "<|channel|>analysis<|message|>Hm."
    assert HARMONY.allows(
        f"{start}{HARMONY.format.end_of_reasoning(NO_TOOLS)}yes", NO_TOOLS, YES_OR_NO
    )


def test_a_forced_end_of_reasoning_leaves_room_for_a_call_that_must_come() -> None:
    wanted = prompt(NOW)
    call = harmony("now", "{}")
    reply = f"<|channel|>analysis<|message|>Hm.{HARMONY.format.end_of_reasoning(wanted)}{call}"
    assert HARMONY.allows(reply, wanted)


def test_an_answer_in_a_format_or_a_call() -> None:
    for model, call in ((HERMES, hermes), (LLAMA, llama), (HARMONY, harmony)):
        final = "<|channel|>final<|message|>" if model is HARMONY else ""
        wanted = prompt(WEATHER, mode="auto")
        assert model.allows(f"{final}yes", wanted, YES_OR_NO)
        assert model.allows(call("weather", GOOD), wanted, YES_OR_NO)
        assert not model.allows(f"{final}perhaps", wanted, YES_OR_NO)
        assert not model.allows(f"{final}yes", prompt(WEATHER), YES_OR_NO)


def test_a_begun_answer_goes_on_in_its_format() -> None:
    begun = ChatPrompt((*HI, Message("assistant", "ye")), continue_final=True)
    rest = OutputFormat("regex", "s|p")
    for model in (HARMONY, QWEN3, HERMES):
        assert model.allows("s", begun, rest)
        assert not model.allows("<think></think>s", begun, rest)


# --- what a format is known by ------------------------------------------------------------------


def test_visible_texts_are_control_tokens_of_the_format() -> None:
    assert HERMES.format.visible_texts == ()
    assert HERMES_TOKENS.format.visible_texts == ("<tool_call>", "</tool_call>")
    assert MAGISTRAL.format.visible_texts == ("[TOOL_CALLS]", "[THINK]", "[/THINK]")
    assert set(DEEPSEEK.format.visible_texts) == set(DEEPSEEK_TOKENS)
    assert set(HARMONY.format.visible_texts) == set(HARMONY_TOKENS)


@pytest.mark.parametrize(
    ("template", "controls", "names"),
    [
        (templates.QWEN3, (), ["HermesFormat"]),
        (templates.QWEN3_CODER, (), ["QwenCoderFormat"]),
        ("{{ tools }} <seed:tool_call> <function=", (), ["QwenCoderFormat"]),
        (templates.LLAMA3_TOOLS, (), ["LlamaFormat"]),
        ("{{ tools }}", ("<|python_tag|>",), ["LlamaFormat"]),
        (templates.MISTRAL_TOOLS, (), ["MistralFormat"]),
        (templates.DEEPSEEK_TOOLS, (), ["DeepSeekFormat"]),
        (templates.CHATML, (), ["HermesFormat", "JsonFormat"]),
        (templates.CHATML, ("<tool_call>",), ["HermesFormat"]),
        (
            "{{ messages[0]['tools'] }}{# tools #} [TOOL_CALLS]",
            (),
            ["HermesFormat", "MistralFormat"],
        ),
        ("{% for %}", (), ["HermesFormat", "JsonFormat"]),
        (templates.DEEPSEEK, DEEPSEEK_TOKENS, ["HermesFormat", "DeepSeekFormat"]),
        ("{{ tools }}", (), ["JsonFormat"]),
    ],
)
def test_families_are_detected(template: str, controls: tuple[str, ...], names: list[str]) -> None:
    tokens = {text: index for index, text in enumerate(controls)}
    found = ChatFormat.detect(template, tokens)
    assert [type(form).__name__ for form in found.tool_formats] == names


def test_how_reasoning_is_ended() -> None:
    assert HERMES.format.end_of_reasoning(NO_TOOLS) is None
    assert QWEN3.format.end_of_reasoning(NO_TOOLS) == "\n</think>\n\n"
    assert MAGISTRAL.format.end_of_reasoning(NO_TOOLS) == "\n[/THINK]\n\n"


def test_plain_text_needs_no_parser() -> None:
    tools_off = prompt(WEATHER, mode="none")
    assert HERMES.format.parser(NO_TOOLS, "") is None
    assert HERMES.format.parser(tools_off, "") is None
    assert QWEN3.format.parser(NO_TOOLS, "<think>\n\n</think>\n\n") is None
    assert QWEN3.format.parser(NO_TOOLS, "") is not None
    assert HERMES.format.parser(prompt(WEATHER), "") is not None
    assert HARMONY.format.parser(NO_TOOLS, "") is not None


@pytest.mark.parametrize("mode", ["required", "auto"])
@pytest.mark.parametrize(
    ("model", "separator"), [(HERMES, "\n"), (HERMES_TOKENS, "\n")], ids=["text", "tokens"]
)
def test_calls_do_not_go_on_for_ever(model: Model, separator: str, mode: Any) -> None:
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    prompt = ChatPrompt((Message("user", "Hi"),), tools=(STRICT,), tool_choice=ToolChoice(mode))
    assert model.allows(separator.join([call] * MAX_CALLS), prompt)
    assert not model.allows(separator.join([call] * (MAX_CALLS + 1)), prompt)
