"""From a chat prompt to the variables that chat templates expect, as `transformers` names them."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from models.chat.template_shield import Cover
from models.errors import InvalidInputError
from models.types.generation import ChatPrompt, Message, TemplateOption, Tool, ToolCall

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_OPTIONS = 16
MAX_OPTION_SIZE = 256
OPTION_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
RESERVED = frozenset({
    "add_generation_prompt", "caller", "chat_template", "continue_final_message", "conversation",
    "cycler", "dict", "documents", "false", "generation", "joiner", "kwargs", "lipsum", "loop",
    "messages", "namespace", "none", "padding", "raise_exception", "range", "return_dict",
    "self", "strftime_now", "super", "tokenize", "tools", "true", "truncation", "varargs",
})  # fmt: skip
"""What templates or their callers give a meaning of their own; so have all names of tokens."""

Variables = dict[str, Any]
NO_PARAMETERS = {"type": "object", "properties": {}}


class JsonObject(dict[str, Any]):
    """An object that templates may also write out as it is: its text is JSON, not Python."""

    def __str__(self) -> str:
        return json.dumps(self, ensure_ascii=False)


def chosen_tools(prompt: ChatPrompt) -> tuple[Tool, ...]:
    """The tools that the model may call, as `tool_choice` leaves them."""
    names = prompt.tool_choice.names
    if prompt.tool_choice.mode == "none":
        return ()
    return tuple(tool for tool in prompt.tools if not names or tool.name in names)


def tool_variables(tools: tuple[Tool, ...], cover: Cover) -> list[Variables] | None:
    """The tools as OpenAI writes them; None when there are none."""
    return [_tool(tool, cover) for tool in tools] or None


def _tool(tool: Tool, cover: Cover) -> Variables:
    try:
        parameters = cover.value(json.loads(tool.parameters or "{}")) or NO_PARAMETERS
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("the parameters of a tool are no JSON Schema", "tools") from error
    function = {
        "name": cover.text(tool.name),
        "description": cover.text(tool.description),
        "parameters": parameters,
    }
    return {"type": "function", "function": function}


def message_variables(
    messages: tuple[Message, ...], cover: Cover, *, developer: bool, short_ids: bool
) -> list[Variables]:
    """The messages as dictionaries, everything in them covered.

    `developer`: the template knows the role, which is "system" otherwise. `short_ids`: it wants
    ids of tool calls that have nine letters and digits. A tool's answer gets the name of the tool.
    """
    names: dict[str, str] = {}
    found = []
    for message in messages:
        if message.role not in ROLES:
            raise InvalidInputError("a message has an unknown role", "messages")
        names |= {call.id: call.name for call in message.tool_calls}
        fields = _message(message, names.get(message.tool_call_id or ""), cover, short_ids)
        if message.role == "developer" and not developer:
            fields["role"] = "system"
        found.append(fields)
    return found


def _message(message: Message, tool: str | None, cover: Cover, short_ids: bool) -> Variables:
    fields: Variables = {"role": message.role, "content": cover.text(message.content)}
    name = tool if message.name is None else message.name
    if name is not None:
        fields["name"] = cover.text(name)
    if message.tool_call_id is not None:
        fields["tool_call_id"] = cover.text(_call_id(message.tool_call_id, short_ids))
    if message.tool_calls:
        fields["tool_calls"] = [_call(call, cover, short_ids) for call in message.tool_calls]
    if message.reasoning is not None:
        # gpt-oss calls it thinking
        fields["reasoning_content"] = fields["thinking"] = cover.text(message.reasoning)
    return fields


def _call(call: ToolCall, cover: Cover, short_ids: bool) -> Variables:
    function = {"name": cover.text(call.name), "arguments": _arguments(call.arguments, cover)}
    id_ = cover.text(_call_id(call.id, short_ids))
    return {"id": id_, "type": "function", "function": function}


def _arguments(text: str, cover: Cover) -> JsonObject | str:
    """The object that the text is; the text itself when it is something else."""
    try:
        value = json.loads(text)
        return JsonObject(cover.value(value)) if isinstance(value, dict) else cover.text(text)
    except (ValueError, RecursionError):
        return cover.text(text)


def _call_id(text: str, short: bool) -> str:
    if not short or re.fullmatch("[a-zA-Z0-9]{9}", text):
        return text
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:9]


def with_arguments_as_text(messages: list[Variables]) -> list[Variables]:
    """The same messages for templates that take a call's arguments for text, not an object."""
    return [
        message | {"tool_calls": [_as_text(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in messages
    ]


def _as_text(call: Variables) -> Variables:
    function = call["function"]
    return call | {"function": function | {"arguments": str(function["arguments"])}}


def option_variables(options: tuple[tuple[str, TemplateOption], ...], cover: Cover) -> Variables:
    """Further variables of the template. They override nothing, and are single short values."""
    if len(options) > MAX_OPTIONS:
        raise InvalidInputError("there are too many template options", "chat_template_kwargs")
    for name, value in options:
        if not OPTION_NAME.fullmatch(name) or name in RESERVED or name.endswith("_token"):
            raise InvalidInputError("this template option is not allowed", "chat_template_kwargs")
        if not _is_small(value):
            raise InvalidInputError(
                "a template option must be a short text, a number or a truth value",
                "chat_template_kwargs",
            )
    return {name: cover.text(v) if isinstance(v, str) else v for name, v in options}


def _is_small(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_OPTION_SIZE
    return isinstance(value, int | float) and abs(value) < 2**53
