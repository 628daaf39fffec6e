"""Messages of a chat request: every role and field of OpenAI's types, taken or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from models.types.generation import Message, ToolCall
from tests.scripted_generation import chat_request, refused

USER = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def messages_of(*wire: dict[str, Any]) -> tuple[Message, ...]:
    prompt: Any = chat_request(messages=list(wire)).prompt
    messages: tuple[Message, ...] = prompt.messages
    return messages


def refusal(*wire: dict[str, Any]) -> tuple[str | None, str]:
    body = {"model": "chat-model", "messages": list(wire)}
    return refused("/v1/chat/completions", body)


@pytest.mark.parametrize("role", ["system", "developer", "user"])
def test_texts(role: str) -> None:
    parts = [
        {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "text", "text": "b"},
    ]
    assert messages_of(
        {"role": role, "content": "x", "name": "someone"}, {"role": role, "content": parts}
    ) == (Message(role, "x", "someone"), Message(role, "ab"))


def test_calls_of_tools_and_their_answers() -> None:
    assert messages_of(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL, CALL | {"id": "call_2"}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "43"}]},
    )[1:] == (
        Message(
            "assistant",
            tool_calls=(ToolCall("call_1", "f", '{"a":1}'), ToolCall("call_2", "f", '{"a":1}')),
        ),
        Message("tool", "42", tool_call_id="call_1"),
        Message("tool", "43", tool_call_id="call_2"),
    )


def test_a_call_may_stand_beside_a_text_and_need_no_arguments() -> None:
    call = {"id": "x", "function": {"name": "f", "arguments": ""}}
    (message,) = messages_of({"role": "assistant", "content": "Let me see.", "tool_calls": [call]})
    assert message == Message("assistant", "Let me see.", tool_calls=(ToolCall("x", "f", "{}"),))


def test_functions_are_tools_whose_calls_are_matched_by_name() -> None:
    call = {"name": "f", "arguments": "{}"}
    _, called, answer = messages_of(
        USER,
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "f", "content": None},
    )
    assert called.tool_calls == (ToolCall("call_f", "f", "{}"),)
    assert answer == Message("tool", "", "f", tool_call_id="call_f")


def test_refusals_of_assistants_are_their_words() -> None:
    parts = [{"type": "text", "text": "Well, "}, {"type": "refusal", "refusal": "no."}]
    assert messages_of(
        {"role": "assistant", "content": parts},
        {"role": "assistant", "content": None, "refusal": "No."},
    ) == (Message("assistant", "Well, no."), Message("assistant", "No."))


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_comes_back_under_either_name(field: str) -> None:
    (message,) = messages_of({"role": "assistant", "content": "4", field: "2 and 2"})
    assert message == Message("assistant", "4", reasoning="2 and 2")


def test_an_answer_can_be_sent_back_as_the_clients_package_dumps_it() -> None:
    completion = ChatCompletion.model_validate(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "tool_calls",
                    "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
                }
            ],
        }
    )
    dumped = completion.choices[0].message.model_dump()
    assert dumped["function_call"] is None
    (message,) = messages_of(dumped)
    assert message.tool_calls == (ToolCall("call_1", "f", '{"a":1}'),)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url"])
def test_parts_that_are_not_text_are_refused_by_name(kind: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": kind, kind: {"url": "data:,"}}]
    param, code = refusal(USER, {"role": "user", "content": parts})
    assert (param, code) == ("messages.1.content.1", "unsupported_input")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user"}, "content"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "user", "content": []}, "content"),
        ({"role": "user", "content": 5}, "content"),
        ({"role": "user", "content": [{"type": "text"}]}, "content.0"),
        ({"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}, "content.0"),
        ({"role": "user", "content": [{"type": "unheard_of"}]}, "content.0"),
        ({"role": "assistant", "content": None}, "content"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "audio"),
        ({"role": "narrator", "content": "x"}, "role"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "tool", "content": None, "tool_call_id": "x"}, "content"),
        ({"role": "function", "content": "x"}, "name"),
        (
            {"role": "assistant", "tool_calls": [CALL], "function_call": CALL["function"]},
            "function_call",
        ),
    ],
    ids=str,
)
def test_messages_that_are_refused_by_name(message: dict[str, Any], param: str) -> None:
    assert refusal(USER, message)[0] == f"messages.1.{param}"


@pytest.mark.parametrize(
    ("call", "param"),
    [
        ({"type": "custom", "custom": {"name": "f", "input": "x"}}, "type"),
        ({"id": ""}, "id"),
        ({"id": None}, "id"),
        ({"function": None}, "function"),
        ({"function": {"name": "", "arguments": "{}"}}, "function.name"),
        ({"function": {"name": "f"}}, "function.arguments"),
        ({"function": {"name": "f", "arguments": {"a": 1}}}, "function.arguments"),
        ({"function": {"name": "f", "arguments": "{"}}, "function.arguments"),
        ({"function": {"name": "f", "arguments": "[1]"}}, "function.arguments"),
        ({"function": {"name": "f", "arguments": "[" * 100_000}}, "function.arguments"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_calls_that_are_refused_by_name(call: dict[str, Any], param: str) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL, CALL | call]}
    assert refusal(message)[0] == f"messages.0.tool_calls.1.{param}"


def test_there_are_bounds_on_calls_and_parts() -> None:
    many_calls = {"role": "assistant", "content": None, "tool_calls": [CALL] * 129}
    assert refusal(many_calls)[0] == "messages.0.tool_calls"
    many_parts = {"role": "user", "content": [{"type": "text", "text": "x"}] * 1025}
    assert refusal(many_parts)[0] == "messages.0.content"
    arguments = '{"a": "' + "x" * 1_000_000 + '"}'
    long = CALL | {"function": {"name": "f", "arguments": arguments}}
    assert refusal({"role": "assistant", "content": None, "tool_calls": [long]})[0] == "messages"
