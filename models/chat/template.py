"""Renders a model's own chat template, and keeps what users wrote apart from what it wrote.

The template comes with the model (GGUF metadata or tokenizer files), never from a request.
Rendering follows `transformers`: trimmed blocks, loop controls, `raise_exception`,
`strftime_now`, a plain `tojson`.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Template, TemplateError

from models.errors import InvalidInputError
from models.chat.template_limits import MAX_SIZE, LimitExceeded
from models.chat.template_sandbox import BoundedEnvironment, TemplateFailure
from models.types import Message

MAX_TEMPLATE_SIZE = 256 * 2**10
RENDER_SECONDS = 2.0
ROLES = ("system", "developer", "user", "assistant", "tool")

_REFUSALS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of rendered text. In template text the texts of control tokens mean the tokens;
    elsewhere they are a user's words and must stay words."""

    text: str
    is_template: bool


@dataclass(frozen=True, slots=True)
class Rendering:
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments)


class ChatTemplate:
    """A compiled chat template.

    `control_texts` are the texts of the vocabulary's control tokens ("<|im_end|>"). Raises
    ValueError when the source is too large or is no template.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        control_texts: Iterable[str] = (),
        render_seconds: float = RENDER_SECONDS,
    ) -> None:
        if len(source) > MAX_TEMPLATE_SIZE:
            raise ValueError("the chat template is too large")
        self._environment = BoundedEnvironment()
        self._template = _compile(self._environment, source)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._knows_developer = "developer" in source
        self._shield = _Shield(text for text in control_texts if text)
        self._seconds = render_seconds
        self._lock = threading.Lock()

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True
    ) -> Rendering:
        """The conversation as the model reads it, up to where the assistant begins.

        Raises InvalidInputError when there is an unknown role or the template refuses the
        messages.
        """
        nonce = secrets.token_hex(8)
        hidden: list[str] = []
        variables: dict[str, Any] = {
            "messages": [self._message(message, nonce, hidden) for message in messages],
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
            **self._tokens,
        }
        return _segments(self._render(variables), nonce, hidden)

    def _message(self, message: Message, nonce: str, hidden: list[str]) -> dict[str, str]:
        if message.role not in ROLES:
            raise InvalidInputError("a message has an unknown role", "messages")
        role = message.role
        if role == "developer" and not self._knows_developer:
            role = "system"
        fields = {"role": role, "content": self._shield.cover(message.content, nonce, hidden)}
        if message.name is not None:
            fields["name"] = self._shield.cover(message.name, nonce, hidden)
        return fields

    def _render(self, variables: dict[str, Any]) -> str:
        try:
            with self._lock:
                self._environment.start(self._seconds)
                return self._collect(variables)
        except TemplateFailure as failure:
            raise InvalidInputError(_refusal(failure, variables), "messages") from failure
        except _REFUSALS as error:
            _log.info("a chat template failed: %s", type(error).__name__)
            raise InvalidInputError(
                "the chat template of this model cannot render these messages", "messages"
            ) from error

    def _collect(self, variables: dict[str, Any]) -> str:
        parts: list[str] = []
        size = 0
        for part in self._template.generate(variables):
            size += len(part)
            if size > MAX_SIZE:
                raise LimitExceeded("the template writes too much")
            self._environment.guard_time()
            parts.append(part)
        return "".join(parts)


def _compile(environment: BoundedEnvironment, source: str) -> Template:
    try:
        return environment.from_string(source)
    except (TemplateError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("the chat template is not valid") from error


def _refusal(failure: TemplateFailure, variables: dict[str, Any]) -> str:
    """The template's own words, unless they quote a message."""
    words = str(failure.message or "")[:200]
    contents = (message["content"] for message in variables["messages"])
    if not words or any(len(text) > 3 and text[:100] in words for text in contents):
        return "the chat template of this model refuses these messages"
    return f"the chat template of this model refuses these messages: {words}"


class _Shield:
    """Takes the texts of control tokens out of what users write.

    They are replaced by marks before rendering, which only this rendering knows, and put back
    afterwards as segments that are not template text. Text without them is not touched, so its
    tokens are those of the plain rendering. The beginning of a control text at the end of a
    message and the end of one at its beginning are covered too: they could become whole beside
    what the template writes there.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        known = sorted(set(texts), key=len, reverse=True)
        heads = {text[:size] for text in known for size in range(1, len(text))}
        tails = {text[-size:] for text in known for size in range(1, len(text))}
        self._inner = re.compile("|".join(map(re.escape, known))) if known else None
        self._head = _alternatives(heads, r"(?=\s*\Z)")
        self._tail = _alternatives(tails, "")

    def cover(self, text: str, nonce: str, hidden: list[str]) -> str:
        """The text with marks; what they stand for is appended to `hidden`."""
        if self._inner is None:
            return text

        def mark(match: re.Match[str]) -> str:
            hidden.append(match.group())
            return f"\ue000{nonce}.{len(hidden) - 1}\ue001"

        text = self._inner.sub(mark, text)
        body = text.lstrip()
        if (match := self._tail.match(body)) is not None:
            text = text[: len(text) - len(body)] + mark(match) + body[match.end() :]
        if (match := self._head.search(text)) is not None:
            text = text[: match.start()] + mark(match) + text[match.end() :]
        return text


def _alternatives(texts: set[str], end: str) -> re.Pattern[str]:
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile(f"(?:{'|'.join(map(re.escape, longest_first))}){end}")


def _segments(text: str, nonce: str, hidden: list[str]) -> Rendering:
    pieces = re.split(f"\ue000{nonce}\\.([0-9]+)\ue001", text)
    segments = [
        Segment(hidden[int(piece)], False) if index % 2 else Segment(piece, True)
        for index, piece in enumerate(pieces)
    ]
    return Rendering(tuple(segment for segment in segments if segment.text))
