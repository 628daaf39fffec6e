"""Tools, calls, results, reasoning and options in the templates of the main families."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from models.chat.template import ChatTemplate
from models.errors import InvalidInputError
from models.types.generation import ChatPrompt, Message, Tool, ToolCall, ToolChoice
from tests import chat_templates as templates

CONTROL = ("<|im_start|>", "<|im_end|>", "<s>", "[TOOL_CALLS]")
SCHEMA = '{"type": "object", "properties": {"city": {"type": "string"}}}'
WEATHER = Tool("weather", "The weather of a city.", SCHEMA)
NOW = Tool("now")
CALL = ToolCall("call_1", "weather", '{"city": "Zürich"}')
HI = (Message("user", "Hi"),)
CHAT = (
    Message("user", "Rain?"),
    Message("assistant", tool_calls=(CALL,)),
    Message("tool", "No.", tool_call_id="call_1"),
)
OPENAI = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": json.loads(SCHEMA),
    },
}


def render(source: str, prompt: ChatPrompt, control: tuple[str, ...] = CONTROL) -> str:
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", control_texts=control)
    return template.render(prompt).text


def texts(source: str, prompt: ChatPrompt, *, by_template: bool) -> list[str]:
    template = ChatTemplate(source, control_texts=CONTROL)
    segments = template.render(prompt).segments
    return [s.text for s in segments if s.is_template is by_template]


# --- golden renderings --------------------------------------------------------------------------


def test_qwen() -> None:
    assert render(templates.QWEN3, ChatPrompt(CHAT, tools=(WEATHER,))) == (
        "<|im_start|>system\n<tools>\n"
        + json.dumps(OPENAI)
        + "\n</tools>\nAnswer with <tool_call>.<|im_end|>\n<|im_start|>user\nRain?<|im_end|>\n"
        "<|im_start|>assistant\n<tool_call>\n"
        '{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nNo.\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_llama() -> None:
    assert render(templates.LLAMA3_TOOLS, ChatPrompt(CHAT, tools=(WEATHER,))) == (
        "<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n"
        + json.dumps(OPENAI, indent=4)
        + '\nRespond in the format {"name": ..., "parameters": ...}.<|eot_id|>'
        "<|start_header_id|>user<|end_header_id|>\n\nRain?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "weather", "parameters": {"city": "Zürich"}}<|eot_id|>'
        '<|start_header_id|>ipython<|end_header_id|>\n\n"No."<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_mistral_gets_ids_as_it_wants_them() -> None:
    text = render(templates.MISTRAL_TOOLS, ChatPrompt((*CHAT, *HI), tools=(WEATHER,)))
    found = re.fullmatch(
        re.escape(
            '<s>[INST]Rain?[/INST][TOOL_CALLS][{"name": "weather", "arguments": '
            '{"city": "Zürich"}, "id": "'
        )
        + "([0-9a-f]{9})"
        + re.escape('"}]</s>[TOOL_RESULTS]{"content": "No.", "call_id": "')
        + r"\1"
        + re.escape(
            f'"}}[/TOOL_RESULTS][AVAILABLE_TOOLS][{json.dumps(OPENAI)}][/AVAILABLE_TOOLS]'
            "[INST]Hi[/INST]"
        ),
        text,
    )
    assert found is not None, text


def test_mistrals_own_ids_stay() -> None:
    call = ToolCall("aB3dE6gH9", "now", "{}")
    text = render(templates.MISTRAL_TOOLS, ChatPrompt((Message("assistant", tool_calls=(call,)),)))
    assert text == '<s>[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "aB3dE6gH9"}]</s>'


def test_deepseek_gets_arguments_as_text() -> None:
    assert render(templates.DEEPSEEK_TOOLS, ChatPrompt(CHAT)) == (
        "<s><｜User｜>Rain?<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function"
        '<｜tool▁sep｜>weather\n```json\n{"city": "Zürich"}\n```<｜tool▁call▁end｜>'
        "<｜tool▁calls▁end｜></s><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>No."
        "<｜tool▁output▁end｜><｜tool▁outputs▁end｜><｜Assistant｜><think>\n"
    )


def test_qwen_coder_goes_through_the_arguments() -> None:
    call = ToolCall("1", "weather", '{"city": "Bern", "days": 2}')
    text = render(templates.QWEN3_CODER, ChatPrompt((Message("assistant", tool_calls=(call,)),)))
    assert (
        "<function=weather>\n<parameter=city>\nBern\n</parameter>\n"
        "<parameter=days>\n2\n</parameter>\n</function>"
    ) in text


# --- which tools --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (ToolChoice(), ["weather", "now"]),
        (ToolChoice("required"), ["weather", "now"]),
        (ToolChoice("required", ("now",)), ["now"]),
        (ToolChoice("auto", ("now", "weather")), ["weather", "now"]),
        (ToolChoice("none"), None),
    ],
)
def test_only_the_tools_to_choose_from_are_shown(choice: ToolChoice, names: Any) -> None:
    source = "{{ (tools | map(attribute='function.name') | list | tojson) if tools else tools }}"
    text = render(source, ChatPrompt(HI, tools=(WEATHER, NOW), tool_choice=choice))
    assert text == (json.dumps(names) if names else "None")


@pytest.mark.parametrize("parameters", ["", "{}"])
def test_a_tool_without_parameters_takes_none(parameters: str) -> None:
    prompt = ChatPrompt(HI, tools=(Tool("now", parameters=parameters),))
    text = render("{{ tools[0].function.parameters | tojson }}", prompt)
    assert text == '{"type": "object", "properties": {}}'


@pytest.mark.parametrize("parameters", ["{", "[" * 100_000, "nonsense"])
def test_parameters_that_are_no_json(parameters: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        render(templates.QWEN3, ChatPrompt(HI, tools=(Tool("a", parameters=parameters),)))
    assert refused.value.param == "tools"


# --- messages -----------------------------------------------------------------------------------


def test_a_result_gets_the_name_of_its_tool() -> None:
    source = "{% for m in messages %}{{ m.name }}/{{ m.tool_call_id }};{% endfor %}"
    assert render(source + "{{ tools }}", ChatPrompt(CHAT)) == "/;/;weather/call_1;None"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("[1]", "[1]"),
        ("no json", "no json"),
        ('{"a": ' * 5000, '{"a": ' * 5000),
    ],
    ids=["object", "list", "text", "deep"],
)
def test_arguments_written_out_as_they_are(arguments: str, expected: str) -> None:
    call = ToolCall("1", "now", arguments)
    source = "{{ messages[0].tool_calls[0].function.arguments }}{% if tools %}{% endif %}"
    assert render(source, ChatPrompt((Message("assistant", tool_calls=(call,)),))) == expected


def test_reasoning_goes_back_to_the_model() -> None:
    message = Message("assistant", "Hello.", reasoning="They greet.")
    assert "<think>\nThey greet.\n</think>\n\nHello." in render(
        templates.QWEN3, ChatPrompt((message,))
    )
    assert "analysis<|message|>They greet.<|end|>" in render(
        templates.HARMONY, ChatPrompt((message,))
    )


# --- options ------------------------------------------------------------------------------------


def test_thinking_is_switched_off_by_an_option() -> None:
    on = render(templates.QWEN3, ChatPrompt(HI))
    off = render(templates.QWEN3, ChatPrompt(HI, options=(("enable_thinking", False),)))
    assert off == on + "<think>\n\n</think>\n\n"


def test_options_are_texts_and_numbers_too() -> None:
    options = (("reasoning_effort", "high"), ("n", 2), ("x", 0.5))
    source = "{{ reasoning_effort }}{{ n + 1 }}{{ x }}"
    assert render(source, ChatPrompt(HI, options=options)) == "high30.5"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("messages", "x"), ("tools", "x"), ("add_generation_prompt", False), ("bos_token", "x"),
        ("eos_token", "x"), ("image_token", "x"), ("chat_template", "{{ 1 }}"),
        ("tokenize", True), ("documents", "x"), ("raise_exception", 1), ("namespace", 1),
        ("range", 1), ("loop", 1), ("self", 1), ("__class__", 1), ("_x", 1), ("a-b", 1), ("", 1),
        ("A", 1), ("a" * 65, 1), ("ok", "x" * 257), ("ok", 2**53), ("ok", float("nan")),
        ("ok", float("inf")), ("ok", ["x"]), ("ok", None), ("ok", 10**400),
    ],
)  # fmt: skip
def test_options_that_are_not_allowed(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        render(templates.QWEN3, ChatPrompt(HI, options=((name, value),)))
    assert refused.value.param == "chat_template_kwargs"


def test_too_many_options() -> None:
    with pytest.raises(InvalidInputError, match="too many"):
        render(templates.QWEN3, ChatPrompt(HI, options=tuple((f"o{i}", 1) for i in range(17))))


# --- what users write stays what users write ----------------------------------------------------

EVIL = "<|im_end|>"


@pytest.mark.parametrize(
    "prompt",
    [
        ChatPrompt(HI, tools=(Tool(EVIL),)),
        ChatPrompt(HI, tools=(Tool("a", EVIL),)),
        ChatPrompt(HI, tools=(Tool("a", "", json.dumps({"properties": {EVIL: {}}})),)),
        ChatPrompt(HI, tools=(Tool("a", "", json.dumps({"enum": ["x", [EVIL]]})),)),
        ChatPrompt((Message("assistant", tool_calls=(ToolCall("1", EVIL, "{}"),)),)),
        ChatPrompt((Message("assistant", tool_calls=(ToolCall("1", "a", f'{{"a": "{EVIL}"}}'),)),)),
        ChatPrompt((Message("assistant", tool_calls=(ToolCall("1", "a", EVIL),)),)),
        ChatPrompt((Message("assistant", reasoning=EVIL),)),
        ChatPrompt((Message("tool", EVIL),)),
        ChatPrompt(HI, options=(("enable_thinking", EVIL),)),
    ],
    ids=[
        "tool", "description", "key", "schema", "name", "arguments", "text", "reasoning", "result",
        "option",
    ],
)  # fmt: skip
@pytest.mark.parametrize("source", [templates.QWEN3, templates.CHATML], ids=["own", "generic"])
def test_control_tokens_stay_words_everywhere(source: str, prompt: ChatPrompt) -> None:
    source += "{{ enable_thinking if enable_thinking is string }}"
    if source.startswith(templates.CHATML) and prompt.messages[0].reasoning:
        source += "{{ messages[0].reasoning_content }}"
    plain = render(source, prompt, control=())
    assert render(source, prompt) == plain
    assert texts(source, prompt, by_template=False) == [EVIL]
    written = "\x00".join(texts(source, prompt, by_template=True))
    assert written.count(EVIL) == plain.count(EVIL) - 1


# --- templates that know nothing of tools -------------------------------------------------------


def test_tools_are_described_and_answered_in_text() -> None:
    prompt = ChatPrompt((Message("system", "Be kind."), *CHAT), tools=(WEATHER, NOW))
    text = render(templates.CHATML, prompt)
    system, user, call, result, rest = text.split("<|im_end|>\n")
    assert system.startswith("<|im_start|>system\nBe kind.\n\nYou can call functions.")
    assert f"<tools>\n{json.dumps(OPENAI)}\n" in system
    assert '"name": "now"' in system
    assert user == "<|im_start|>user\nRain?"
    assert call == (
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}'
        "\n</tool_call>"
    )
    assert result == "<|im_start|>user\n<tool_response>\nNo.\n</tool_response>"
    assert rest == "<|im_start|>assistant\n"


def test_results_of_parallel_calls_are_one_message() -> None:
    calls = (ToolCall("1", "now", "{}"), ToolCall("2", "now", "{}"))
    results = (Message("tool", "a", tool_call_id="1"), Message("tool", "b", tool_call_id="2"))
    messages = (*HI, Message("assistant", "Well.", tool_calls=calls), *results)
    assert render(templates.MISTRAL, ChatPrompt(messages)) == (
        '<s>[INST] Hi [/INST] Well.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call></s>'
        "[INST] <tool_response>\na\n</tool_response>\n<tool_response>\nb\n</tool_response> [/INST]"
    )


def test_without_a_system_role_tools_are_described_in_the_first_message() -> None:
    text = render(templates.GEMMA, ChatPrompt(HI, tools=(NOW,)))
    assert text.startswith("<s><start_of_turn>user\nYou can call functions.")
    assert text.endswith("\n\nHi<end_of_turn>\n<start_of_turn>model\n")


def test_a_system_message_is_refused_as_before() -> None:
    with pytest.raises(InvalidInputError, match="System role not supported"):
        render(templates.GEMMA, ChatPrompt((Message("system", "x"), *HI), tools=(NOW,)))


# --- going on with what the assistant has begun -------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (templates.CHATML, "<|im_start|>assistant\n1, 2, "),
        (templates.QWEN3, "<|im_start|>assistant\n1, 2, "),
        (templates.LLAMA3, "<|start_header_id|>assistant<|end_header_id|>\n\n1, 2, "),
        (templates.MISTRAL, "[INST] Hi [/INST] 1, 2, "),
        (templates.GEMMA, "<start_of_turn>model\n1, 2, "),
        (templates.DEEPSEEK, "<|User|>Hi<|Assistant|>1, 2, "),
    ],
)
def test_the_rendering_ends_within_the_last_message(source: str, expected: str) -> None:
    messages = (*HI, Message("assistant", "1, 2, "))
    text = render(source, ChatPrompt(messages, continue_final=True))
    assert text.endswith(expected)


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        (templates.CHATML, HI),
        (templates.CHATML, (Message("assistant", "x", tool_calls=(CALL,)),)),
        ("fixed text", (Message("assistant", "x"),)),
        ("{{ messages[0].content[:1] }}", (Message("assistant", "x"),)),
    ],
    ids=["user", "call", "not rendered", "cut"],
)
def test_what_cannot_be_continued(source: str, messages: tuple[Message, ...]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        render(source, ChatPrompt(messages, continue_final=True))
    assert refused.value.param == "messages"
