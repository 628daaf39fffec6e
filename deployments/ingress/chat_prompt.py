"""What of a request becomes a chat prompt: messages, tools, and variables of the template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from deployments.ingress.chat_messages import ChatMessage, chat_messages, texts_of
from deployments.ingress.chat_tools import ToolFields
from deployments.ingress.schemas import at_most
from deployments.ingress.server import Server, check_count, check_texts
from models.errors import InvalidInputError
from models.types.generation import ChatPrompt, Message, TemplateOption

OptionText = Annotated[str, Field(max_length=256)]
Options = Annotated[dict[str, bool | int | float | OptionText], at_most(16)]


class ChatPromptFields(ToolFields):
    """Shared by all routes that render a chat template."""

    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    think: bool | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    chat_template_kwargs: Options | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    chat_template: Any | None = None
    documents: Any | None = None

    def prompt_of(self, server: Server, wire: Sequence[ChatMessage]) -> ChatPrompt:
        """The prompt that these messages make. Raises InvalidInputError."""
        self._refuse()
        check_count("messages", len(wire), server.config.limits.max_messages)
        messages, tools = chat_messages(wire), self.tool_set()
        check_texts(server, "messages", texts_of(messages))
        check_texts(server, "tools", [tool.description + tool.parameters for tool in tools])
        return ChatPrompt(
            messages,
            tools,
            self.choice(tools),
            self.parallel_tool_calls and not self.calls_functions,
            self._options(),
            self._continues(messages),
        )

    def _refuse(self) -> None:
        """Templates come with the models, never from a request."""
        refused = {
            "chat_template": self.chat_template,
            "chat_template_kwargs": (self.chat_template_kwargs or {}).get("chat_template"),
            "documents": self.documents,
        }
        for param, value in refused.items():
            if value is not None:
                raise InvalidInputError(f"'{param}' has what this server does not take.", param)

    def _continues(self, messages: Sequence[Message]) -> bool:
        if not self.continue_final_message:
            if self.add_generation_prompt is False:
                message = "Only 'continue_final_message' goes without a generation prompt."
                raise InvalidInputError(message, "add_generation_prompt")
            return False
        if self.add_generation_prompt:
            message = "A final message that is continued has no generation prompt after it."
            raise InvalidInputError(message, "add_generation_prompt")
        if messages[-1].role != "assistant" or messages[-1].tool_calls:
            message = "Only a text of the assistant can be continued."
            raise InvalidInputError(message, "continue_final_message")
        return True

    def _options(self) -> tuple[tuple[str, TemplateOption], ...]:
        """The more special field wins: `think` over the effort, the template's own over both.

        The engine knows which names a template may be given.
        """
        options: dict[str, TemplateOption] = {}
        if self.reasoning_effort is not None:
            options["reasoning_effort"] = self.reasoning_effort
            if self.reasoning_effort == "none":
                options["enable_thinking"] = False
        if self.verbosity is not None:
            options["verbosity"] = self.verbosity
        if self.think is not None:
            options["enable_thinking"] = self.think
        options |= self.chat_template_kwargs or {}
        return tuple(options.items())
