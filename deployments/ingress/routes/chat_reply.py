"""What POST /v1/chat/completions answers: a whole completion, or a stream of chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from deployments.ingress.generations import Completed, finite, usage_of
from deployments.ingress.schemas import CompletionUsage, FinishReason, Omittable, Reply
from deployments.ingress.sse import Envelope
from models.types.common import Usage
from models.types.generation import ChoiceDelta, TextDelta, TokenLogprob, ToolCall, ToolCallDelta

Json = dict[str, Any]


class TopLogprob(Reply):
    token: str
    logprob: float
    bytes: list[int] | None


class ContentLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Reply):
    content: list[ContentLogprob] | None
    refusal: list[ContentLogprob] | None = None


class CalledFunction(Reply):
    name: str
    arguments: str


class ReplyToolCall(Reply):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AssistantMessage(Reply):
    """The reasoning has two names, because clients look for either."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning_content: Omittable[str] = None
    reasoning: Omittable[str] = None
    tool_calls: Omittable[list[ReplyToolCall]] = None
    function_call: Omittable[CalledFunction] = None


class ChatChoice(Reply):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Reply):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    service_tier: Omittable[Literal["default"]] = None


def chat_choice(index: int, completed: Completed, *, logprobs: bool, functions: bool) -> ChatChoice:
    """`functions`: the client knows `function_call` and not `tool_calls`."""
    listed = ChatLogprobs.model_validate(_logprobs(completed.logprobs)) if logprobs else None
    return ChatChoice(
        index=index,
        message=_message(completed, functions=functions),
        logprobs=listed,
        finish_reason=_reason(completed.finish_reason, functions=functions),
    )


def _message(completed: Completed, *, functions: bool) -> AssistantMessage:
    text, reasoning, calls = completed.text, completed.reasoning or None, completed.tool_calls
    message = AssistantMessage(
        content=None if calls and not text else text,
        reasoning_content=reasoning,
        reasoning=reasoning,
    )
    if calls and functions:
        message.function_call = _called(calls[0])
    elif calls:
        message.tool_calls = [ReplyToolCall(id=call.id, function=_called(call)) for call in calls]
    return message


def _called(call: ToolCall) -> CalledFunction:
    return CalledFunction(name=call.name, arguments=call.arguments)


def _reason(reason: FinishReason, *, functions: bool) -> FinishReason:
    return "function_call" if functions and reason == "tool_calls" else reason


async def chat_chunks(
    deltas: AsyncGenerator[list[ChoiceDelta]],
    envelope: Envelope,
    *,
    n: int,
    include_usage: bool,
    functions: bool,
) -> AsyncGenerator[bytes]:
    """Groups of events: the roles with the first deltas, the deltas of each step, the usage."""
    usages: dict[int, Usage] = {}
    opening = b"".join(envelope.chunk(_opening(index)) for index in range(n))
    async for group in deltas:
        choices = (choice for item in group for choice in _chunk_choices(item, functions))
        yield opening + b"".join(map(envelope.chunk, choices))
        opening = b""
        usages |= {item.index: item.delta.usage for item in group if item.delta.usage}
    if include_usage:
        yield envelope.usage(usage_of([list(usages.values())]))


def _opening(index: int) -> Json:
    delta = {"role": "assistant", "content": ""}
    return {"index": index, "delta": delta, "finish_reason": None}


def _chunk_choices(item: ChoiceDelta, functions: bool) -> Iterator[Json]:
    """What a delta says, then its end, in chunks of their own as OpenAI sends them."""
    delta = item.delta
    said = _said(delta, functions)
    if said:
        choice: Json = {"index": item.index, "delta": said, "finish_reason": None}
        if delta.logprobs:
            choice["logprobs"] = _logprobs(delta.logprobs)
        yield choice
    if delta.finish_reason is not None:
        reason = _reason(delta.finish_reason, functions=functions)
        yield {"index": item.index, "delta": {}, "finish_reason": reason}


def _said(delta: TextDelta, functions: bool) -> Json:
    said: Json = {}
    if delta.reasoning:
        said["reasoning_content"] = said["reasoning"] = delta.reasoning
    if delta.text or (delta.logprobs and not said):
        said["content"] = delta.text
    if delta.tool_calls and functions:
        said |= _function_call([call for call in delta.tool_calls if call.index == 0])
    elif delta.tool_calls:
        said["tool_calls"] = [_tool_piece(call) for call in delta.tool_calls]
    return said


def _function_call(pieces: Sequence[ToolCallDelta]) -> Json:
    """The one call that a client of `functions` understands."""
    if not pieces:
        return {}
    arguments = "".join(piece.arguments for piece in pieces)
    return {"function_call": _function_piece(replace(pieces[0], arguments=arguments))}


def _tool_piece(call: ToolCallDelta) -> Json:
    piece: Json = {"index": call.index, "function": _function_piece(call)}
    if call.id is not None:
        piece |= {"id": call.id, "type": "function"}
    return piece


def _function_piece(call: ToolCallDelta) -> Json:
    """OpenAI's accumulators add the arguments up, and take the name from where it is."""
    piece: Json = {"arguments": call.arguments}
    if call.name is not None:
        piece["name"] = call.name
    return piece


def _logprobs(logprobs: Sequence[TokenLogprob]) -> Json:
    content = [
        _logprob(entry) | {"top_logprobs": [_logprob(top) for top in entry.top]}
        for entry in logprobs
    ]
    return {"content": content, "refusal": None}


def _logprob(entry: TokenLogprob) -> Json:
    """Only the first token of an echoed prompt has no log probability, and chats have no echo."""
    logprob = finite(entry.logprob or 0.0)
    return {"token": entry.text, "logprob": logprob, "bytes": list(entry.raw)}
