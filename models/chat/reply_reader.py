"""Reads a reply from its first character to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from models.chat.reasoning import Reasoning, ReasoningState
from models.chat.reply import ReplyPart
from models.chat.reply_writer import ReplyWriter
from models.chat.text_source import Markers, NotACall, Steps, TextSource
from models.chat.tool_formats.base import ToolFormat
from models.chat.tool_formats.calls import Calls, openai_id
from models.types.generation import Tool

Read = Callable[[TextSource, Calls, ReplyWriter], Steps[None]]


class GeneratorParser:
    """A `ReplyParser` of a reader that is written as a generator."""

    def __init__(
        self, read: Read, tools: Iterable[Tool], new_id: Callable[[], str] = openai_id
    ) -> None:
        self._source = TextSource()
        self._writer = ReplyWriter(new_id)
        calls = Calls(tools, self._source, self._writer)
        self._steps = read(self._source, calls, self._writer)
        self._go_on()

    @property
    def in_reasoning(self) -> bool:
        return self._writer.in_reasoning

    @property
    def called_tools(self) -> bool:
        return self._writer.calls > 0

    def push(self, text: str) -> ReplyPart:
        self._source.feed(text)
        self._go_on()
        return self._writer.take()

    def finish(self) -> ReplyPart:
        self._source.end()
        self._go_on()
        self._writer.end()
        return self._writer.take()

    def _go_on(self) -> None:
        next(self._steps, None)


def reply_reader(
    reasoning: Reasoning | None,
    state: ReasoningState,
    formats: Sequence[ToolFormat],
    bare: ToolFormat | None,
) -> Read:
    """Reads reasoning, then content with calls in it. `bare` reads calls without an opening, which
    must be the beginning of the answer."""
    openings = {opening: form for form in formats for opening in form.openings}
    markers = Markers(openings)

    def read(source: TextSource, calls: Calls, writer: ReplyWriter) -> Steps[None]:
        if reasoning is not None:
            yield from reasoning.read(state, source, writer)
        if bare is not None:
            writer.content((yield from source.space()))
            opening = yield from source.literal(*openings)
            yield from attempt(openings.get(opening, bare), opening, source, calls)
        while opening := (yield from source.until(markers, writer.content)):
            yield from attempt(openings[opening], opening, source, calls)

    def attempt(form: ToolFormat, opening: str, source: TextSource, calls: Calls) -> Steps[None]:
        source.record(opening)
        with suppress(NotACall):
            yield from form.read(opening, source, calls)
        calls.leave()

    return read
