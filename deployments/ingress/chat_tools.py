"""Tools that a chat may call: OpenAI's `tools`, and the `functions` that came before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from deployments.ingress.schemas import FunctionName, LenientBody, schema_text
from models.errors import InvalidInputError
from models.types.generation import Tool, ToolChoice

MAX_TOOLS = 128
NO_PARAMETERS = {"type": "object", "properties": {}}
"""OpenAI: "Omitting `parameters` defines a function with an empty parameter list"."""


class FunctionBody(LenientBody):
    name: FunctionName
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: NO_PARAMETERS)
    strict: bool = False


class ToolBody(LenientBody):
    """Only functions are served, no custom tools."""

    type: Annotated[str, Field(max_length=64)]
    function: FunctionBody | None = None


class NamedFunction(LenientBody):
    name: FunctionName


class ToolReference(LenientBody):
    type: Literal["function"]
    function: NamedFunction


class AllowedTools(LenientBody):
    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolReference], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class ToolChoiceBody(LenientBody):
    type: Literal["function", "allowed_tools"]
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class ToolFields(LenientBody):
    """The fields of a request that say which tools there are and how they are chosen."""

    tools: Annotated[list[ToolBody], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoiceBody | None = None
    parallel_tool_calls: bool = True
    functions: Annotated[list[FunctionBody], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = (
        None
    )
    function_call: Literal["none", "auto"] | NamedFunction | None = None

    @property
    def calls_functions(self) -> bool:
        """The client speaks of functions, of which an answer calls at most one."""
        return bool(self.functions)

    def tool_set(self) -> tuple[Tool, ...]:
        """Raises InvalidInputError for what is not served and for names that occur twice."""
        if self.tools and self.functions:
            raise InvalidInputError("A request has 'tools' or 'functions'.", "functions")
        if self.functions:
            tools = [_tool(body, f"functions.{i}") for i, body in enumerate(self.functions)]
        else:
            tools = [_function(body, f"tools.{i}") for i, body in enumerate(self.tools or [])]
        if len({tool.name for tool in tools}) < len(tools):
            param = "functions" if self.functions else "tools"
            raise InvalidInputError("The names of tools must be different.", param)
        return tuple(tools)

    def choice(self, tools: Sequence[Tool]) -> ToolChoice:
        """How the model chooses among `tools`. Raises InvalidInputError for unknown ones."""
        if self.tool_choice is not None and self.function_call is not None:
            message = "A request has 'tool_choice' or 'function_call'."
            raise InvalidInputError(message, "function_call")
        choice, param = _choice(self.tool_choice), "tool_choice"
        if self.function_call is not None:
            choice, param = _function_choice(self.function_call), "function_call"
        if choice.mode == "required" and not tools:
            raise InvalidInputError(f"'{param}' demands a tool, and there are none.", param)
        if not set(choice.names) <= {tool.name for tool in tools}:
            raise InvalidInputError(f"'{param}' names a tool that is not there.", param)
        return choice


def _function(body: ToolBody, param: str) -> Tool:
    if body.type != "function":
        message = "Only tools of the type 'function' are supported by this server."
        raise InvalidInputError(message, f"{param}.type")
    if body.function is None:
        raise InvalidInputError("A tool needs a function.", f"{param}.function")
    return _tool(body.function, f"{param}.function")


def _tool(body: FunctionBody, param: str) -> Tool:
    if body.parameters.get("type", "object") != "object":
        message = "The arguments of a function are an object: 'type' must be 'object'."
        raise InvalidInputError(message, f"{param}.parameters.type")
    text = schema_text(body.parameters, f"{param}.parameters")
    return Tool(body.name, body.description, text, body.strict)


def _choice(wire: str | ToolChoiceBody | None) -> ToolChoice:
    match wire:
        case None | "auto":
            return ToolChoice()
        case "none":
            return ToolChoice("none")
        case "required":
            return ToolChoice("required")
        case ToolChoiceBody(type="function", function=NamedFunction(name=name)):
            return ToolChoice("required", (name,))
        case ToolChoiceBody(type="allowed_tools", allowed_tools=AllowedTools() as allowed):
            return ToolChoice(allowed.mode, tuple(tool.function.name for tool in allowed.tools))
    raise InvalidInputError("'tool_choice' does not say which tools.", "tool_choice")


def _function_choice(wire: str | NamedFunction) -> ToolChoice:
    if isinstance(wire, NamedFunction):
        return ToolChoice("required", (wire.name,))
    return ToolChoice("none" if wire == "none" else "auto")
