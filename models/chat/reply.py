"""What a model writes in answer to a chat, taken apart: content, reasoning, tool calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from models.types.generation import ToolCallDelta


@dataclass(frozen=True, slots=True)
class ReplyPart:
    """What a stretch of the model's text adds to its reply."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class ReplyParser(Protocol):
    """Takes one reply apart while it is being written. Never fails: what is not a tool call in the
    model's format is content, as the model wrote it."""

    @property
    def in_reasoning(self) -> bool:
        """The reasoning has begun and not ended."""

    @property
    def called_tools(self) -> bool:
        """At least one tool call has begun."""

    def push(self, text: str) -> ReplyPart:
        """Add text; returns what is certain because of it."""

    def finish(self) -> ReplyPart:
        """What was held back. The reply may have been cut anywhere."""
