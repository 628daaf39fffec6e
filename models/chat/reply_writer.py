"""What a reader makes of a reply, collected until it is sent."""

from __future__ import annotations

from collections.abc import Callable

from models.chat.reply import ReplyPart
from models.types.generation import ToolCallDelta


class TrimmedText:
    """Text as it comes. White space at its end is held back until text follows."""

    def __init__(self) -> None:
        self._written = False
        self._is_cut = False
        self._held: list[str] = []

    def push(self, text: str) -> str:
        if self._is_cut and not self._written:
            text = text.lstrip()
        body = text.rstrip()
        if not body:
            self._held.append(text)
            return ""
        ready = "".join(self._held) + body
        self._held = [text[len(body) :]]
        self._written, self._is_cut = True, False
        return ready

    def cut(self) -> None:
        """Something else comes here: white space is dropped unless there is text on both sides."""
        self._is_cut = True
        if not self._written:
            self._held = []

    def rest(self) -> str:
        """What is still held back at the end."""
        return "" if self._is_cut else "".join(self._held)


class ReplyWriter:
    """Content, reasoning and tool calls. White space around all of one is dropped where another
    stands beside it; `new_id` makes ids of calls."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.calls = 0
        self.in_reasoning = False
        self._new_id = new_id
        self._content, self._reasoning = TrimmedText(), TrimmedText()
        self._part: tuple[list[str], list[str], list[ToolCallDelta]] = ([], [], [])

    def content(self, text: str) -> None:
        self._part[0].append(self._content.push(text))

    def begin_reasoning(self) -> None:
        self.in_reasoning = True
        self._reasoning.cut()

    def reasoning(self, text: str) -> None:
        self._part[1].append(self._reasoning.push(text))

    def end_reasoning(self) -> None:
        self.in_reasoning = False

    def begin_call(self, name: str) -> None:
        self._content.cut()
        self._part[2].append(ToolCallDelta(self.calls, id=self._new_id(), name=name))
        self.calls += 1

    def arguments(self, text: str) -> None:
        """More of the arguments of the call that was begun last."""
        if text:
            self._part[2].append(ToolCallDelta(self.calls - 1, text))

    def end(self) -> None:
        """The reply is complete."""
        self._part[0].append(self._content.rest())

    def take(self) -> ReplyPart:
        """What was written since the last time."""
        content, reasoning, calls = self._part
        self._part = ([], [], [])
        return ReplyPart("".join(content), "".join(reasoning), _merged(calls))


def _merged(deltas: list[ToolCallDelta]) -> tuple[ToolCallDelta, ...]:
    """Pieces of the same call's arguments as one piece."""
    groups: list[list[ToolCallDelta]] = []
    for delta in deltas:
        if groups and groups[-1][0].index == delta.index:
            groups[-1].append(delta)
        else:
            groups.append([delta])
    return tuple(
        ToolCallDelta(
            group[0].index, "".join(d.arguments for d in group), group[0].id, group[0].name
        )
        for group in groups
    )
