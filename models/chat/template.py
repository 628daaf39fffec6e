"""Renders a model's own chat template, and keeps what users wrote apart from what it wrote.

The template comes with the model (GGUF metadata or tokenizer files), never from a request.
Rendering follows `transformers`: trimmed blocks, loop controls, `raise_exception`,
`strftime_now`, a plain `tojson`, tools and calls of tools as OpenAI writes them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from jinja2 import Template, TemplateError, meta

from models.chat import generic_tools
from models.chat.template_limits import MAX_SIZE, LimitExceeded
from models.chat.template_sandbox import BoundedEnvironment, TemplateFailure
from models.chat.template_shield import Cover, Rendering, Shield
from models.chat.template_variables import (
    Variables,
    chosen_tools,
    message_variables,
    option_variables,
    tool_variables,
    with_arguments_as_text,
)
from models.errors import InvalidInputError
from models.types.generation import ChatPrompt

MAX_TEMPLATE_SIZE = 256 * 2**10
RENDER_SECONDS = 2.0

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
        self._knows_tools = knows_tools(source)
        # Mistral's templates refuse other ids than their own
        self._short_ids = "[TOOL_CALLS]" in source
        self._shield = Shield(text for text in control_texts if text)
        self._seconds = render_seconds
        self._lock = threading.Lock()

    def render(self, prompt: ChatPrompt) -> Rendering:
        """The conversation as the model reads it, up to where the assistant begins or, with
        `continue_final`, to the end of what the assistant has begun.

        Tools that the template does not know are described in the system message. Raises
        InvalidInputError when there is an unknown role, a template option is not allowed, or the
        template refuses the messages.
        """
        cover = Cover(self._shield)
        text = self._first_that_renders(self._attempts(prompt, cover))
        if prompt.continue_final:
            text, found, _ = text.rpartition(cover.end)
            if not found:
                raise _refused("cannot continue this message")
        return cover.reveal(text)

    def _attempts(self, prompt: ChatPrompt, cover: Cover) -> Iterator[Variables]:
        """Variables to render, best first: templates differ in how they want tools."""
        messages = message_variables(
            prompt.messages, cover, developer=self._knows_developer, short_ids=self._short_ids
        )
        if prompt.continue_final:
            _mark_end(messages, cover.end)
        tools = tool_variables(chosen_tools(prompt), cover)
        common = {
            "add_generation_prompt": not prompt.continue_final,
            "documents": None,
            **option_variables(prompt.options, cover),
            **self._tokens,
        }
        if self._knows_tools:
            for turns in _with_native_calls(messages):
                yield common | {"messages": turns, "tools": tools}
        else:
            for turns in _with_generic_tools(messages, tools):
                yield common | {"messages": turns, "tools": None}

    def _first_that_renders(self, attempts: Iterator[Variables]) -> str:
        refusal: InvalidInputError | None = None
        for variables in attempts:
            try:
                return self._render(variables)
            except InvalidInputError as error:
                refusal = refusal or error
        assert refusal is not None  # noqa: S101  (there is always an attempt)
        raise refusal

    def _render(self, variables: Variables) -> str:
        try:
            with self._lock:
                self._environment.start(self._seconds)
                return self._collect(variables)
        except TemplateFailure as failure:
            raise _refused(*_own_words(failure, variables)) from failure
        except _REFUSALS as error:
            _log.info("a chat template failed: %s", type(error).__name__)
            raise _refused("cannot render these messages") from error

    def _collect(self, variables: Variables) -> str:
        parts: list[str] = []
        size = 0
        for part in self._template.generate(variables):
            size += len(part)
            if size > MAX_SIZE:
                raise LimitExceeded("the template writes too much")
            self._environment.guard_time()
            parts.append(part)
        return "".join(parts)


def knows_tools(source: str) -> bool:
    """The template has a place for tools: it reads the variable of that name."""
    try:
        return "tools" in meta.find_undeclared_variables(BoundedEnvironment().parse(source))
    except (TemplateError, SyntaxError, RecursionError):
        return False


def _compile(environment: BoundedEnvironment, source: str) -> Template:
    try:
        return environment.from_string(source)
    except (TemplateError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("the chat template is not valid") from error


def _mark_end(messages: list[Variables], mark: str) -> None:
    if not messages or messages[-1]["role"] != "assistant" or "tool_calls" in messages[-1]:
        raise InvalidInputError("only an assistant's text can be continued", "messages")
    messages[-1]["content"] += mark


def _with_native_calls(messages: list[Variables]) -> Iterator[list[Variables]]:
    yield messages
    if any("tool_calls" in message for message in messages):
        yield with_arguments_as_text(messages)


def _with_generic_tools(
    messages: list[Variables], tools: list[Variables] | None
) -> Iterator[list[Variables]]:
    turns = generic_tools.as_text(messages)
    if tools is None:
        yield turns
        return
    prompt = generic_tools.described(tools)
    yield generic_tools.in_system(turns, prompt)
    yield generic_tools.in_first_message(turns, prompt)


def _refused(what: str, why: str = "") -> InvalidInputError:
    return InvalidInputError(f"the chat template of this model {what}{why}", "messages")


def _own_words(failure: TemplateFailure, variables: dict[str, Any]) -> tuple[str, str]:
    """The template's own words, unless they quote a message."""
    words = str(failure.message or "")[:200]
    contents = (message["content"] for message in variables["messages"])
    if not words or any(len(text) > 3 and text[:100] in words for text in contents):
        return "refuses these messages", ""
    return "refuses these messages", f": {words}"
