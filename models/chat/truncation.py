"""Which messages of a chat that is too long can go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from models.types.generation import ChatPrompt, Message

INSTRUCTIONS = ("system", "developer")


def turn_starts(messages: Sequence[Message]) -> list[int]:
    """Where the conversation may begin after its instructions, oldest first.

    It begins with a user's message, so that templates that insist on taking turns accept it, and
    no tool's answer stays without its call. The first entry drops nothing; at least the last
    user's message and what follows it stay.
    """
    head = _instructions(messages)
    later = [i for i in range(head + 1, len(messages)) if messages[i].role == "user"]
    return [head, *later]


def without_turns_before(prompt: ChatPrompt, start: int) -> ChatPrompt:
    """The instructions, then the conversation from message `start` on."""
    messages = prompt.messages
    kept = messages[: _instructions(messages)] + messages[start:]
    return replace(prompt, messages=kept)


def _instructions(messages: Sequence[Message]) -> int:
    """How many messages at the beginning are instructions."""
    return next((i for i, m in enumerate(messages) if m.role not in INSTRUCTIONS), len(messages))
