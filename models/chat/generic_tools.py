"""Tools for models whose template knows nothing of them: described, called and answered in text.

The form is that of Hermes models, which many others have seen in training.
"""

from __future__ import annotations

import json
from typing import Any

Variables = dict[str, Any]

_PROMPT = """\
You can call functions. Their signatures stand between <tools> and </tools>:
<tools>
{tools}
</tools>
To call a function, write its name and its arguments as JSON between <tool_call> and </tool_call>:
<tool_call>
{{"name": <name of the function>, "arguments": <object with the arguments>}}
</tool_call>
The result follows between <tool_response> and </tool_response>."""


def described(tools: list[Variables]) -> str:
    """What tells the model which tools there are and how they are called."""
    return _PROMPT.format(tools="\n".join(_json(tool) for tool in tools))


def as_text(messages: list[Variables]) -> list[Variables]:
    """The messages with calls and their results as text; results become a user's message."""
    found: list[Variables] = []
    for message in messages:
        if message["role"] != "tool":
            found.append(_with_calls(message))
            continue
        text = f"<tool_response>\n{message['content']}\n</tool_response>"
        if found and found[-1].get("answers"):  # templates may insist on alternating roles
            found[-1]["content"] += "\n" + text
        else:
            found.append({"role": "user", "content": text, "answers": True})
    return found


def _with_calls(message: Variables) -> Variables:
    calls = [
        f"<tool_call>\n{_json(_signature(call['function']))}\n</tool_call>"
        for call in message.get("tool_calls", ())
    ]
    parts = [message["content"], *calls] if message["content"] else calls
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    return rest | {"content": "\n".join(parts)}


def _signature(function: Variables) -> Variables:
    return {"name": function["name"], "arguments": function["arguments"]}


def in_system(messages: list[Variables], prompt: str) -> list[Variables]:
    """The prompt at the end of the system message, or as one."""
    if messages and messages[0]["role"] in ("system", "developer"):
        return [_extended(messages[0], messages[0]["content"] + "\n\n" + prompt), *messages[1:]]
    return [{"role": "system", "content": prompt}, *messages]


def in_first_message(messages: list[Variables], prompt: str) -> list[Variables]:
    """The prompt at the beginning of the first message, for models without a system role."""
    if not messages:
        return messages
    return [_extended(messages[0], prompt + "\n\n" + messages[0]["content"]), *messages[1:]]


def _extended(message: Variables, content: str) -> Variables:
    return message | {"content": content}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
