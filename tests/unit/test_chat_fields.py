"""Fields of a chat request: what each becomes for the engine, or how it is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from pydantic import ValidationError

from deployments.ingress.errors import describe
from deployments.ingress.routes.chat_request import ChatBody
from models.errors import InvalidInputError
from models.types.generation import ChatPrompt, OutputFormat, Tool, ToolChoice
from tests.fakes import make_server
from tests.scripted_generation import CHAT, chat_request, refused

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
SCHEMA_TEXT = '{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}'
F = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
G = {"type": "function", "function": {"name": "g"}}


def schema_of(param: str) -> OutputFormat:
    return OutputFormat("json_schema", SCHEMA_TEXT, param)


def refusal(**fields: Any) -> str | None:
    return refused("/v1/chat/completions", CHAT | fields)[0]


def prompt_of(**fields: Any) -> ChatPrompt:
    prompt = chat_request(**fields).prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


def test_no_field_of_openais_is_unknown() -> None:
    fields = set(CompletionCreateParamsBase.__annotations__) | {"stream"}
    assert fields <= set(ChatBody.model_fields)


# --- tools ----------------------------------------------------------------------------------


def test_tools() -> None:
    strict = {"type": "function", "function": {"name": "s-1_A", "strict": True}}
    prompt = prompt_of(tools=[F, strict], parallel_tool_calls=False)
    assert prompt.tools == (
        Tool("f", "d", SCHEMA_TEXT),
        Tool("s-1_A", "", '{"type":"object","properties":{}}', strict=True),
    )
    assert prompt.tool_choice == ToolChoice("auto")
    assert prompt.parallel_tool_calls is False
    assert prompt_of(tools=[F]).parallel_tool_calls is True
    assert prompt_of(tools=[]).tools == ()


@pytest.mark.parametrize(
    ("wire", "choice"),
    [
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "function": {"name": "g"}}, ToolChoice("required", ("g",))),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [F, G]}},
            ToolChoice("auto", ("f", "g")),
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [G]}},
            ToolChoice("required", ("g",)),
        ),
    ],
    ids=str,
)
def test_tool_choice(wire: Any, choice: ToolChoice) -> None:
    assert prompt_of(tools=[F, G], tool_choice=wire).tool_choice == choice


@pytest.mark.parametrize(
    ("wire", "choice"),
    [
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ({"name": "f"}, ToolChoice("required", ("f",))),
    ],
    ids=str,
)
def test_functions_are_tools_of_which_one_is_called(wire: Any, choice: ToolChoice) -> None:
    prompt = prompt_of(functions=[F["function"]], function_call=wire)
    assert prompt.tools == (Tool("f", "d", SCHEMA_TEXT),)
    assert prompt.tool_choice == choice
    assert prompt.parallel_tool_calls is False


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools.0.type"),
        ({"tools": [F, {"type": "function"}]}, "tools.1.function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools.0.function.name",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "x" * 65}}]},
            "tools.0.function.name",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "parameters": "{}"}}]},
            "tools.0.function.parameters",
        ),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "x", "parameters": {"type": "array"}}}
                ]
            },
            "tools.0.function.parameters.type",
        ),
        ({"tools": [F, F]}, "tools"),
        ({"tools": [G] * 129}, "tools"),
        ({"functions": [{"name": "f"}] * 2}, "functions"),
        ({"tools": [F], "functions": [{"name": "f"}]}, "functions"),
        ({"tools": [F], "tool_choice": "some"}, "tool_choice"),
        ({"tools": [F], "tool_choice": G}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "function"}}, "tool_choice"),
        (
            {"tools": [F], "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
            "tool_choice.type",
        ),
        (
            {
                "tools": [F],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [G]},
                },
            },
            "tool_choice",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"tools": [F], "tool_choice": "auto", "function_call": "auto"}, "function_call"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_tools_that_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields) == param


def test_there_are_bounds_on_the_parameters_of_tools() -> None:
    large = {"type": "object", "description": "x" * 131_072}
    tool = {"type": "function", "function": {"name": "f", "parameters": large}}
    assert refusal(tools=[tool]) == "tools.0.function.parameters"
    wordy = [
        {"type": "function", "function": {"name": f"f{i}", "description": "x" * 100_000}}
        for i in range(41)
    ]
    assert refusal(tools=wordy) == "tools"


# --- formats --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, OutputFormat("json_object")),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
                }
            },
            OutputFormat("json_schema", SCHEMA_TEXT),
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "description": "d"},
                }
            },
            OutputFormat("json_schema", SCHEMA_TEXT),
        ),
        ({"structured_outputs": {"json": SCHEMA}}, schema_of("structured_outputs.json")),
        (
            {"structured_outputs": {"json": json.dumps(SCHEMA)}},
            schema_of("structured_outputs.json"),
        ),
        (
            {"structured_outputs": {"regex": "a+"}},
            OutputFormat("regex", "a+", "structured_outputs.regex"),
        ),
        (
            {"structured_outputs": {"choice": ["a", "ü"]}},
            OutputFormat("choice", '["a", "ü"]', "structured_outputs.choice"),
        ),
        ({"structured_outputs": {"json_object": True}}, OutputFormat("json_object")),
        ({"guided_json": SCHEMA}, schema_of("guided_json")),
        ({"guided_regex": "a+"}, OutputFormat("regex", "a+", "guided_regex")),
        ({"guided_choice": ["a"]}, OutputFormat("choice", '["a"]', "guided_choice")),
    ],
    ids=lambda value: str(value)[:60],
)
def test_output_formats(fields: dict[str, Any], expected: OutputFormat | None) -> None:
    assert chat_request(**fields).output_format == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            "response_format.json_schema.name",
        ),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "[" * 100_000}, "guided_json"),
        ({"guided_json": {"x": "y" * 131_072}}, "guided_json"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"guided_regex": "x" * 8193}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_grammar": "root ::= 'a'"}, "guided_grammar"),
        ({"grammar": "root ::= 'a'"}, "grammar"),
        ({"structured_outputs": {"grammar": "x"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        (
            {"response_format": {"type": "json_object"}, "guided_regex": "a"},
            "guided_regex",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_formats_that_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields) == param


def test_a_schema_with_numbers_that_are_none_is_refused() -> None:
    body = json.dumps(CHAT | {"guided_json": {"minimum": 0}}).replace("0}", "1e999}")
    with pytest.raises(InvalidInputError, match="finite"):
        ChatBody.model_validate_json(body).generation_request(make_server())


@pytest.mark.parametrize("depth", range(200, 1400, 40))
def test_a_deep_schema_in_a_text_is_no_failure(depth: int) -> None:
    schema = '{"not":' * depth + "{}" + "}" * depth
    assert status_of(json.dumps(CHAT | {"guided_json": schema})) in {200, 400}


# --- the template ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"reasoning_effort": "max"}, {"reasoning_effort": "max"}),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False}),
        ({"think": True}, {"enable_thinking": True}),
        (
            {"reasoning_effort": "none", "think": True},
            {"reasoning_effort": "none", "enable_thinking": True},
        ),
        ({"verbosity": "low"}, {"verbosity": "low"}),
        (
            {"think": True, "chat_template_kwargs": {"enable_thinking": False, "k": 1, "t": "x"}},
            {"enable_thinking": False, "k": 1, "t": "x"},
        ),
    ],
    ids=str,
)
def test_template_options(fields: dict[str, Any], options: dict[str, Any]) -> None:
    assert dict(prompt_of(**fields).options) == options


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "much"}, "reasoning_effort"),
        ({"think": "yes"}, "think"),
        ({"verbosity": "shouting"}, "verbosity"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"documents": [{"text": "x"}]}, "documents"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": [1]}}, "chat_template_kwargs.a"),
        ({"chat_template_kwargs": {"a": "x" * 257}}, "chat_template_kwargs.a"),
        ({"chat_template_kwargs": {f"a{i}": 1 for i in range(17)}}, "chat_template_kwargs"),
        ({"thinking_budget": -1}, "thinking_budget"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"continue_final_message": True}, "continue_final_message"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_template_fields_that_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields) == param


def test_thinking_budget() -> None:
    assert chat_request(thinking_budget=64).thinking_budget == 64
    assert chat_request().thinking_budget is None


def test_an_answer_that_has_begun_is_continued() -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Once"}]
    assert prompt_of(messages=messages).continue_final is False
    assert prompt_of(messages=messages, continue_final_message=True).continue_final is True
    both = {"continue_final_message": True, "add_generation_prompt": False}
    assert prompt_of(messages=messages, **both).continue_final is True
    both["add_generation_prompt"] = True
    assert refusal(messages=messages, **both) == "add_generation_prompt"
    call = {"id": "x", "function": {"name": "f", "arguments": "{}"}}
    calling = [messages[0], {"role": "assistant", "content": "Once", "tool_calls": [call]}]
    assert refusal(messages=calling, continue_final_message=True) == "continue_final_message"


# --- truncation and sampling ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "truncation"),
    [
        ({}, "disabled"),
        ({"truncation": "disabled"}, "disabled"),
        ({"truncation": "auto"}, "auto"),
        ({"auto_truncate": True}, "auto"),
        ({"auto_truncate": False}, "disabled"),
        ({"truncation_strategy": "sliding_window"}, "auto"),
        ({"auto_truncate": False, "truncation_strategy": "keep_system"}, "disabled"),
    ],
    ids=str,
)
def test_truncation(fields: dict[str, Any], truncation: str) -> None:
    assert chat_request(**fields).truncation == truncation


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"truncation": "sometimes"}, "truncation"),
        ({"truncation_strategy": "summarize"}, "truncation_strategy"),
        ({"truncation": "auto", "auto_truncate": False}, "auto_truncate"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {" 1": 1}}, "logit_bias"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": 1}, "logprobs"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_other_fields_that_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields) == param


def test_every_sampling_field_reaches_the_engine() -> None:
    fields = {
        "min_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "presence_penalty": 0.25,
        "frequency_penalty": -0.25,
        "repetition_penalty": 1.1,
        "seed": 7,
        "ignore_eos": True,
    }
    sampling = chat_request(**fields).sampling
    assert {name: getattr(sampling, name) for name in fields} == fields


# --- fields that promise nothing, and promises that are not kept ------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u"},
        {"metadata": {"k": "v"}},
        {"store": True},
        {"service_tier": "flex"},
        {"safety_identifier": "s"},
        {"prompt_cache_key": "k"},
        {"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}},
        {"prompt_cache_retention": "24h"},
        {"prediction": {"type": "content", "content": "text"}},
        {"prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
        {"modalities": ["text"]},
        {"stream_options": {"include_obfuscation": False}},
        {"parallel_tool_calls": True},
    ],
    ids=str,
)
def test_hints_change_nothing(fields: dict[str, Any]) -> None:
    assert chat_request(**fields) == chat_request()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"moderation": {"model": "omni-moderation-latest"}}, "moderation"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {str(i): "v" for i in range(17)}}, "metadata"),
        ({"metadata": {"k" * 100: "v"}}, "metadata"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"prediction": {"type": "draft", "content": "x"}}, "prediction.type"),
        ({"user": 5}, "user"),
        ({"store": "yes"}, "store"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_promises_that_are_not_kept_are_refused(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields) == param


@pytest.mark.parametrize("field", ["logit_bias", "metadata", "chat_template_kwargs"])
def test_a_large_object_is_refused_by_its_size_and_not_by_its_entries(field: str) -> None:
    body = json.dumps(CHAT | {field: {f"k{i}": [] for i in range(5000)}})
    with pytest.raises(ValidationError) as refusal:
        ChatBody.model_validate_json(body)
    (error,) = refusal.value.errors()
    assert error["loc"] == (field,)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(ChatBody.model_fields)), JSON, max_size=4))
def test_any_fields_at_all_are_answered_or_refused(fields: dict[str, Any]) -> None:
    assert status_of(json.dumps(CHAT | fields)) in {200, 400}


def status_of(body: str) -> int:
    try:
        ChatBody.model_validate_json(body).generation_request(make_server())
    except Exception as error:
        return describe(error)[0].status
    return 200
