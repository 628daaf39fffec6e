"""How a model's family writes a reply: where reasoning ends, what a tool call looks like."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from models.chat import harmony
from models.chat.lark import Grammar, any_of, further_calls
from models.chat.reasoning import Reasoning, ReasoningState, detect_reasoning
from models.chat.reply import ReplyParser
from models.chat.reply_reader import GeneratorParser, reply_reader
from models.chat.template_variables import chosen_tools
from models.chat.tool_formats.base import CallableTool, ToolFormat
from models.chat.tool_formats.detection import detect_tool_formats
from models.chat.tool_formats.json_calls import JsonFormat
from models.structured.grammars import body_of
from models.types.generation import ChatPrompt, OutputFormat


@dataclass(frozen=True, slots=True, eq=False)
class ChatFormat:
    """The reply format of one model, known from its template and its control tokens.

    `tool_formats` are the forms of calls it may use, the one it is asked for first. `harmony`: it
    writes messages in channels instead.
    """

    tool_formats: tuple[ToolFormat, ...]
    reasoning: Reasoning | None = None
    harmony: bool = False
    control_tokens: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def detect(cls, template_source: str, control_tokens: Mapping[str, int]) -> ChatFormat:
        """The format of a model; `control_tokens` maps texts of control tokens to their ids."""
        return cls(
            detect_tool_formats(template_source, control_tokens),
            detect_reasoning(template_source, control_tokens),
            harmony.CHANNEL in template_source or harmony.CHANNEL in control_tokens,
            control_tokens,
        )

    @property
    def visible_texts(self) -> tuple[str, ...]:
        """Texts of the control tokens that a parser must see: whoever turns tokens into text
        writes these texts for them while a parser is at work."""
        return tuple(text for text in self._markers() if text in self.control_tokens)

    def end_of_reasoning(self, prompt: ChatPrompt) -> str | None:
        """Template text that ends the reasoning (None: the model does not reason); as tokens,
        with the texts of control tokens read as those tokens."""
        if self.harmony:
            return harmony.TO_CALL if _must_call(prompt) else harmony.TO_FINAL
        return None if self.reasoning is None else self.reasoning.forced_end

    def parser(self, prompt: ChatPrompt, rendered: str) -> ReplyParser | None:
        """What takes the reply to this prompt apart; None when it can be nothing but content.

        `rendered` is the text that the prompt became: it may have begun or ended the reasoning.
        """
        tools = chosen_tools(prompt)
        if self.harmony:
            return GeneratorParser(harmony.read_harmony, tools)
        state = self._state(prompt, rendered)
        if not tools and state is ReasoningState.OVER:
            return None
        read = reply_reader(
            self.reasoning,
            state,
            self.tool_formats if tools else (),
            self._bare_format(prompt) if tools else None,
        )
        return GeneratorParser(read, tools, self.tool_formats[0].new_id)

    def grammar(
        self, prompt: ChatPrompt, output_format: OutputFormat | None, rendered: str
    ) -> str | None:
        """What the reply must be, as a Lark grammar for llguidance; None: anything.

        A tool that must be called gets arguments that fit its schema; so does a strict one
        whenever it is called. Control tokens stand in the grammar by their ids, all other markers
        as text. Raises InvalidInputError when a format or a strict schema cannot be followed.
        """
        if output_format is None and not _constrains_calls(prompt):
            return None
        tools = [CallableTool.of(tool, held=_must_call(prompt)) for tool in chosen_tools(prompt)]
        body = None if output_format is None else body_of(output_format, output_format.param)
        grammar = Grammar(self.control_tokens)
        if self.harmony:
            answer = None if _must_call(prompt) else body or "FREE"
            reply = harmony.harmony_grammar(grammar, tools, answer, prompt.continue_final)
            return grammar.written(reply)
        state = self._state(prompt, rendered)
        before = "" if self.reasoning is None else self.reasoning.grammar(state, grammar)
        answer = self._calls(prompt, tools, body, grammar) if tools else f"({body})"
        return grammar.written(f"{before} {answer}")

    # --- parts ----------------------------------------------------------------------------------

    def _state(self, prompt: ChatPrompt, rendered: str) -> ReasoningState:
        if self.reasoning is None:
            return ReasoningState.OVER
        return self.reasoning.state(prompt, rendered)

    def _bare_format(self, prompt: ChatPrompt) -> ToolFormat | None:
        """Who reads calls that are a whole reply. They are not looked for where calls are
        constrained, as the constraint knows the usual form only."""
        usual = self.tool_formats[0]
        if prompt.continue_final and prompt.messages[-1].content:
            return None
        if usual.bare:
            return usual
        return None if _constrains_calls(prompt) else JsonFormat()

    def _calls(
        self, prompt: ChatPrompt, tools: list[CallableTool], body: str | None, grammar: Grammar
    ) -> str:
        """An expression for an answer that has calls, or may have some."""
        usual, many = self.tool_formats[0], prompt.parallel_tool_calls
        calls = usual.grammar(tools, grammar, many=many)
        opening = "" if usual.bare else grammar.text(usual.openings[0])
        whole = f"{opening} {calls}"
        if many and usual.repeats:
            whole += " " + further_calls(f'"\\n"? {opening} {calls}')
        if _must_call(prompt):
            return whole
        if body is not None:
            return any_of([body, whole])
        if usual.bare:
            return any_of([whole, grammar.terminal(_not_beginning_with(usual.bare))])
        lazily = f"({grammar.through(usual.openings[0])} {calls})"
        without = grammar.without(usual.openings[0])
        return f"({lazily} {further_calls(lazily)})? {without}" if many else f"{lazily}? {without}"

    def _markers(self) -> Collection[str]:
        markers = {text: None for form in self.tool_formats for text in form.markers}
        if self.reasoning is not None:
            markers |= {self.reasoning.begin: None, self.reasoning.end: None}
        if self.harmony:
            markers |= dict.fromkeys(harmony.MARKERS)
        return markers


def _not_beginning_with(characters: str) -> str:
    """Any text whose first character, white space aside, is none of these."""
    return rf"/(\s*[^\s{re.escape(characters)}](?s:.*))?/"


def _must_call(prompt: ChatPrompt) -> bool:
    return prompt.tool_choice.mode == "required" and bool(chosen_tools(prompt))


def _constrains_calls(prompt: ChatPrompt) -> bool:
    """Calls must keep to the usual form and to schemas, or there may be one at most."""
    tools = chosen_tools(prompt)
    one_at_most = bool(tools) and not prompt.parallel_tool_calls
    return _must_call(prompt) or one_at_most or any(tool.strict for tool in tools)
