"""The reasoning that some models write before their answer."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from models.chat.lark import Grammar
from models.chat.reply_writer import ReplyWriter
from models.chat.text_source import Markers, Steps, TextSource
from models.types.generation import ChatPrompt

_LINE_BREAKS = re.compile(r"\n+")


class ReasoningState(Enum):
    """Where a reply begins."""

    OPEN = "within the reasoning"
    POSSIBLE = "before the reasoning, should there be one"
    OVER = "after the reasoning"


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The texts around the reasoning: `<think>` and `</think>`."""

    begin: str
    end: str

    @property
    def forced_end(self) -> str:
        """What a model would write to end its reasoning itself."""
        return f"\n{self.end}\n\n"

    def state(self, prompt: ChatPrompt, rendered: str) -> ReasoningState:
        """Where the reply begins: templates may open the reasoning, or open and close it."""
        content = prompt.messages[-1].content if prompt.continue_final else ""
        if content.strip():
            is_open = content.rfind(self.begin) > content.rfind(self.end)
            return ReasoningState.OPEN if is_open else ReasoningState.OVER
        written = rendered.rstrip()
        if written.endswith(self.begin):
            return ReasoningState.OPEN
        return ReasoningState.OVER if written.endswith(self.end) else ReasoningState.POSSIBLE

    def read(self, state: ReasoningState, source: TextSource, writer: ReplyWriter) -> Steps[None]:
        """Read the reasoning, if there is one, up to where the answer begins."""
        if state is ReasoningState.OVER:
            return
        if state is ReasoningState.POSSIBLE:
            before = yield from source.space()
            if not (yield from source.literal(self.begin)):
                writer.content(before)
                return
        writer.begin_reasoning()
        yield from source.until(Markers([self.end]), writer.reasoning)
        writer.end_reasoning()
        yield from source.run(_LINE_BREAKS)

    def grammar(self, state: ReasoningState, grammar: Grammar) -> str:
        """An expression for what is still to come of the reasoning."""
        if state is ReasoningState.OVER:
            return ""
        line_breaks = grammar.terminal(r"/\n{1,2}/")
        rest = f"{grammar.through(self.end)} {line_breaks}?"
        return rest if state is ReasoningState.OPEN else f"({grammar.text(self.begin)} {rest})?"


FAMILIES = (
    Reasoning("<think>", "</think>"),  # Qwen 3, QwQ, DeepSeek R1, SmolLM3
    Reasoning("[THINK]", "[/THINK]"),  # Magistral
    Reasoning("<seed:think>", "</seed:think>"),  # Seed-OSS
)


def detect_reasoning(template_source: str, control_texts: Collection[str]) -> Reasoning | None:
    """How the model reasons, if its template or its vocabulary knows how."""
    for family in FAMILIES:
        if family.end in template_source or family.end in control_texts:
            return family
    return None
