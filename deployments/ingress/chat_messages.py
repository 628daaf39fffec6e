"""The messages of a chat: from OpenAI's shapes to ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from deployments.ingress.schemas import LenientBody
from models.errors import InvalidInputError, UnsupportedInputError
from models.types.generation import Message, ToolCall

MAX_PARTS = 1024
MAX_TOOL_CALLS = 128
NOT_READ = {"image_url", "input_audio", "file", "video_url"}
"""Content parts that OpenAI or vLLM know and no model of this server reads."""
Identifier = Annotated[str, Field(min_length=1, max_length=256)]


class ContentPart(LenientBody):
    """Texts, and refusals in the messages of assistants."""

    type: Annotated[str, Field(max_length=64)]
    text: str | None = None
    refusal: str | None = None


class FunctionCall(LenientBody):
    """`arguments` are the text of a JSON object."""

    name: Identifier
    arguments: str


class MessageToolCall(LenientBody):
    id: Identifier
    type: Annotated[str, Field(max_length=64)] = "function"
    function: FunctionCall | None = None


class ChatMessage(LenientBody):
    """Which fields a message may have depends on its role; docs/api.md has the table."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: (
        str | Annotated[list[ContentPart], Field(max_length=MAX_PARTS, fail_fast=True)] | None
    ) = None
    name: Annotated[str, Field(max_length=256)] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: (
        Annotated[list[MessageToolCall], Field(max_length=MAX_TOOL_CALLS, fail_fast=True)] | None
    ) = None
    function_call: FunctionCall | None = None
    tool_call_id: Identifier | None = None
    audio: dict[str, Any] | None = None


Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000, fail_fast=True)]


def chat_messages(wire: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Raises InvalidInputError, which names the message and its field."""
    return tuple(_message(message, f"messages.{i}") for i, message in enumerate(wire))


def texts_of(messages: Sequence[Message]) -> list[str]:
    """All that a client wrote into the messages, for limits on its size."""
    texts = [message.content + (message.reasoning or "") for message in messages]
    return texts + [call.arguments for message in messages for call in message.tool_calls]


def _message(wire: ChatMessage, param: str) -> Message:
    match wire.role:
        case "assistant":
            return _assistant(wire, param)
        case "tool":
            if wire.tool_call_id is None:
                message = "A tool's message needs the id of the call that it answers."
                raise InvalidInputError(message, f"{param}.tool_call_id")
            return Message("tool", _content(wire, param), wire.name, tool_call_id=wire.tool_call_id)
        case "function":
            if not wire.name:
                raise InvalidInputError("A function's message needs its name.", f"{param}.name")
            content = "" if wire.content is None else _content(wire, param)
            return Message("tool", content, wire.name, tool_call_id=_id_of_function(wire.name))
        case role:
            return Message(role, _content(wire, param), wire.name)


def _assistant(wire: ChatMessage, param: str) -> Message:
    if wire.audio is not None:
        message = "Answers in audio are not supported by this server."
        raise UnsupportedInputError(message, f"{param}.audio")
    calls = _calls(wire, param)
    speechless = wire.content is None and (bool(calls) or wire.refusal is not None)
    content = "" if speechless else _content(wire, param)
    return Message(
        "assistant",
        content + (wire.refusal or ""),
        wire.name,
        tool_calls=calls,
        reasoning=wire.reasoning_content or wire.reasoning or None,
    )


def _content(wire: ChatMessage, param: str) -> str:
    param = f"{param}.content"
    if isinstance(wire.content, str):
        return wire.content
    if not wire.content:
        raise InvalidInputError("A message needs content: a text or a list of text parts.", param)
    return "".join(
        _part(part, wire.role, f"{param}.{index}") for index, part in enumerate(wire.content)
    )


def _part(part: ContentPart, role: str, param: str) -> str:
    if part.type == "text" and part.text is not None:
        return part.text
    if part.type == "refusal" and part.refusal is not None and role == "assistant":
        return part.refusal
    if part.type in NOT_READ:
        message = f"Content parts of the type '{part.type}' are not supported by this server."
        raise UnsupportedInputError(message, param)
    raise InvalidInputError("A content part must be a text.", param)


def _calls(wire: ChatMessage, param: str) -> tuple[ToolCall, ...]:
    if wire.function_call is not None:
        if wire.tool_calls:
            message = "A message has 'tool_calls' or 'function_call'."
            raise InvalidInputError(message, f"{param}.function_call")
        call = wire.function_call
        arguments = _arguments(call, f"{param}.function_call")
        return (ToolCall(_id_of_function(call.name), call.name, arguments),)
    return tuple(
        _call(call, f"{param}.tool_calls.{index}")
        for index, call in enumerate(wire.tool_calls or [])
    )


def _call(wire: MessageToolCall, param: str) -> ToolCall:
    if wire.type != "function":
        message = "Only tools of the type 'function' are supported by this server."
        raise InvalidInputError(message, f"{param}.type")
    if wire.function is None:
        raise InvalidInputError("A tool call needs a function.", f"{param}.function")
    return ToolCall(wire.id, wire.function.name, _arguments(wire.function, f"{param}.function"))


def _arguments(call: FunctionCall, param: str) -> str:
    """Chat templates take arguments apart, so they must be an object; many clients send an empty
    text for no arguments."""
    text = call.arguments if call.arguments.strip() else "{}"
    try:
        arguments = orjson.loads(text)
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        message = "The arguments of a call must be the text of a JSON object."
        raise InvalidInputError(message, f"{param}.arguments")
    return text


def _id_of_function(name: str) -> str:
    """Functions had no call ids; a call and its answer are matched by name."""
    return f"call_{name}"
