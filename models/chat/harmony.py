"""The reply format of gpt-oss: messages in channels, each after a header.

`<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…`: analysis is
reasoning, what is addressed `to=functions.name` is a call, everything else is content.
Source: OpenAI's description of the format, cookbook article "OpenAI harmony response format".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from models.chat.lark import Grammar, any_of
from models.chat.reply_writer import ReplyWriter
from models.chat.text_source import Markers, Steps, TextSource
from models.chat.tool_formats.base import CallableTool
from models.chat.tool_formats.calls import Calls

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
CONSTRAIN, CALL, RETURN = "<|constrain|>", "<|call|>", "<|return|>"
MARKERS = (START, CHANNEL, MESSAGE, END, CONSTRAIN, CALL, RETURN)
TO_CALL = f"{END}{START}assistant"
TO_FINAL = f"{TO_CALL}{CHANNEL}final{MESSAGE}"

_HEADER_END = Markers([MESSAGE])
_BODY_END = Markers([END, CALL, RETURN, START])
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.\-]+)")
_ANALYSIS = re.compile(r"<\|channel\|>\s*analysis\b")


def read_harmony(source: TextSource, calls: Calls, writer: ReplyWriter) -> Steps[None]:
    """Read messages until the reply ends. A reply without a header is content."""
    start = yield from source.literal(CHANNEL, START, " to=")
    if not start:
        yield from source.until(_BODY_END, writer.content)
        start = START
    while True:
        header = [start]
        if not (yield from source.until(_HEADER_END, header.append)):
            return
        yield from _read_body("".join(header), source, calls, writer)
        start = ""


def _read_body(header: str, source: TextSource, calls: Calls, writer: ReplyWriter) -> Steps[None]:
    recipient = _RECIPIENT.search(header)
    if recipient is not None:
        if calls.known(recipient[1]):
            call = calls.begin(recipient[1])
            yield from source.until(_BODY_END, call.arguments)
            call.end()
            calls.leave()
            return
        writer.content(header + MESSAGE)
    if recipient is None and _ANALYSIS.search(header):
        writer.begin_reasoning()
        yield from source.until(_BODY_END, writer.reasoning)
        writer.end_reasoning()
    else:
        yield from source.until(_BODY_END, writer.content)


def harmony_grammar(
    grammar: Grammar, tools: Sequence[CallableTool], answer: str | None, continued: bool
) -> str:
    """An expression for a reply that is an answer or, with tools, a call. `answer` None: there
    must be a call; `continued`: the reply goes on within the answer."""
    if continued and answer is not None:
        return answer
    analysis = grammar.text(f"{CHANNEL}analysis{MESSAGE}")
    after = grammar.text(f"{START}assistant")
    choices = [_call(tool, grammar) for tool in tools]
    if answer is not None:
        choices.append(f"{grammar.text(f'{CHANNEL}final{MESSAGE}')} {answer}")
    return f"({analysis} {grammar.through(END)} {after})? {any_of(choices)}"


def _call(tool: CallableTool, grammar: Grammar) -> str:
    header = f"{CHANNEL}commentary to=functions.{tool.name} {CONSTRAIN}json{MESSAGE}"
    return f"{grammar.text(header)} {grammar.schema(tool.schema)}"
