"""Generation: chats and prompts in, deltas out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.types.common import Usage

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that an assistant's message made; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; `role` is system, developer, user, assistant or tool.

    An assistant's message may have `tool_calls` and `reasoning`; a tool's answer names the call
    it answers in `tool_call_id`.
    """

    role: str
    content: str = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is the text of its JSON Schema.

    `strict`: what the model writes as arguments must fit the schema.
    """

    name: str
    description: str = ""
    parameters: str = "{}"
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools are called: as the model likes, not at all, or at least one.

    `names` are the tools to choose from; empty: all of them.
    """

    mode: Literal["auto", "none", "required"] = "auto"
    names: tuple[str, ...] = ()


TemplateOption = bool | int | float | str


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages, rendered by the model's own chat template.

    `options` are further variables of the template, such as `enable_thinking`.
    `continue_final`: the last message is the beginning of the answer.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    options: tuple[tuple[str, TemplateOption], ...] = ()
    continue_final: bool = False


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Plain text, tokenised as it is (plus the model's BOS token where it wants one)."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids of the model's own vocabulary, used as they are."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InfillPrompt:
    """Write what stands between two texts; for models with fill-in-the-middle tokens."""

    prefix: str
    suffix: str


Prompt = ChatPrompt | TextPrompt | TokenPrompt | InfillPrompt


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What the completion must be, whatever the model would rather write.

    `definition` is the text of a JSON Schema (json_schema), a regular expression (regex), a JSON
    list of texts (choice), and not used for json_object. `param` is the request's field that a
    fault in it is named by.
    """

    kind: Literal["json_object", "json_schema", "regex", "choice"]
    definition: str = ""
    param: str = "response_format"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen and when generation ends. Defaults are OpenAI's.

    `max_tokens` None: up to the end of the context; 0: nothing, to score an echoed prompt.
    `temperature` 0: greedy. `top_k` 0, `top_p` 1, `min_p` 0, `repetition_penalty` 1: off.
    `logprobs` None: none; k: the chosen token's log probability and the k most likely
    alternatives. `stop` strings never appear in the output.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """`n` completions of one prompt; choice i uses seed + i when a seed is given.

    `echo` puts the prompt before the completion, with its log probabilities if those are asked
    for. `truncation` "auto" drops the oldest messages of a chat that is too long, "disabled"
    refuses it. `thinking_budget` ends the reasoning after so many tokens. Requests of one `caller`
    take turns with those of others.
    """

    prompt: Prompt
    sampling: SamplingParams = SamplingParams()
    n: int = 1
    output_format: OutputFormat | None = None
    echo: bool = False
    truncation: Literal["disabled", "auto"] = "disabled"
    thinking_budget: int | None = None
    caller: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token with its natural-log probability; `top` holds the likeliest alternatives.

    `logprob` is None for the first token of an echoed prompt, which nothing predicts.
    """

    text: str
    raw: bytes
    logprob: float | None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the tool call `index`: `id` and `name` once, then `arguments` bit by bit."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What one step added to one choice. The last delta has `finish_reason` and `usage`."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """A delta of the choice `index` of a request."""

    index: int
    delta: TextDelta


@dataclass(frozen=True, slots=True)
class Delivery:
    """What has been generated for one call since the last delivery; an error ends the call."""

    call_id: str
    deltas: tuple[ChoiceDelta, ...]
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """Tokens of a prompt. For texts: with the BOS token (`add_special`), with the texts of control
    tokens read as those tokens (`parse_special`)."""

    prompt: ChatPrompt | TextPrompt
    add_special: bool = True
    parse_special: bool = False


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids, the bytes each stands for, and the context length of the model."""

    ids: tuple[int, ...]
    pieces: tuple[bytes, ...]
    context_length: int
