"""/tokenize, /detokenize and /apply-template: how a model reads texts and chats.

Each path takes the shapes of vLLM and of llama-server, /tokenize that of TEI as well; which one it
is, the fields say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from pydantic import Field, RootModel
from starlette.requests import Request

from deployments.ingress.chat_messages import Messages
from deployments.ingress.chat_prompt import ChatPromptFields
from deployments.ingress.embedding_fields import Inputs, PromptName, check_inputs, inputs_of
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.schemas import (
    LenientBody,
    ModelName,
    Omittable,
    Reply,
    Texts,
    TokenIds,
)
from deployments.ingress.server import Endpoint, Server, check_texts
from models.errors import InvalidInputError
from models.types.generation import ChatPrompt, TextPrompt, TokenizeRequest, Tokens

TokenList = Annotated[TokenIds, Field(min_length=0)]


class TokenizeBody(KeepAliveFields, ChatPromptFields):
    """vLLM's `prompt` or `messages`, llama-server's `content`, or TEI's `inputs`.

    `inputs` are for an embedding model, the others for one that generates.
    """

    model: ModelName | None = None
    prompt: str | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False
    messages: Messages | None = None
    content: str | None = None
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
    inputs: str | Texts | None = None
    prompt_name: PromptName | None = None

    def tokenize_request(self, server: Server) -> TokenizeRequest:
        """Raises InvalidInputError unless there is one thing to tokenise."""
        inputs = {"prompt": self.prompt, "messages": self.messages, "content": self.content}
        given = [param for param, value in inputs.items() if value is not None]
        if len(given) != 1:
            message = "Give one of 'prompt', 'messages', 'content' and 'inputs'."
            raise InvalidInputError(message, given[1] if given else "prompt")
        if self.messages is not None:
            return TokenizeRequest(self.prompt_of(server, self.messages))
        if self.content is not None:
            check_texts(server, "content", [self.content])
            text = TextPrompt(self.content)
            return TokenizeRequest(text, self.add_special, self.parse_special)
        check_texts(server, "prompt", [self.prompt or ""])
        return TokenizeRequest(TextPrompt(self.prompt or ""), self.add_special_tokens)


class TokenPiece(Reply):
    """llama-server's `with_pieces`: the text of a token, or its bytes where they are no text."""

    id: int
    piece: str | list[int]


class TokenizeReply(Reply):
    """`count` and `max_model_len` are vLLM's; llama-server answers `tokens` alone."""

    count: Omittable[int] = None
    max_model_len: Omittable[int] = None
    tokens: list[int] | list[TokenPiece]
    token_strs: Omittable[list[str]] = None


class TeiToken(Reply):
    """TEI's: the token and the characters [start, stop) that it stands for."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TokenizeAnswer(RootModel[TokenizeReply | list[list[TeiToken]]]):
    """Which one it is, the request says."""


class DetokenizeBody(KeepAliveFields, LenientBody):
    model: ModelName | None = None
    tokens: TokenList


class DetokenizeReply(Reply):
    """The text under the names of both, whose requests are the same."""

    prompt: str
    content: str


class ApplyTemplateBody(KeepAliveFields, ChatPromptFields):
    """The fields of a chat that its template sees; the others are ignored."""

    model: ModelName | None = None
    messages: Messages


class ApplyTemplateReply(Reply):
    prompt: str


async def tokenize(server: Server, request: Request, body: TokenizeBody) -> TokenizeAnswer:
    """The tokens of a text or of a chat."""
    del request
    if body.inputs is not None:
        return TokenizeAnswer(await _tei_tokens(server, body, inputs_of(body.inputs)))
    return TokenizeAnswer(await _tokens(server, body))


async def _tei_tokens(server: Server, body: TokenizeBody, inputs: Inputs) -> list[list[TeiToken]]:
    """As an embedding model reads texts."""
    spec = server.model(body.model, "embedding")
    check_inputs(server, "inputs", inputs)
    replies = await server.clients.embedding.tokenize(
        spec.id,
        [text for text in inputs if isinstance(text, str)],
        specials=body.add_special_tokens,
        prompt_name=body.prompt_name,
    )
    return [[TeiToken.model_validate(asdict(token)) for token in tokens] for tokens in replies]


async def _tokens(server: Server, body: TokenizeBody) -> TokenizeReply:
    """As a model that generates reads a text or a chat."""
    spec = server.model(body.model, "generation")
    tokens = await server.clients.generation.tokenize(spec.id, body.tokenize_request(server))
    if body.content is not None:
        return TokenizeReply(tokens=_pieces(tokens) if body.with_pieces else list(tokens.ids))
    return TokenizeReply(
        count=len(tokens.ids),
        max_model_len=tokens.context_length,
        tokens=list(tokens.ids),
        token_strs=_strings(tokens.pieces) if body.return_token_strs else None,
    )


async def detokenize(server: Server, request: Request, body: DetokenizeBody) -> DetokenizeReply:
    """The text of tokens."""
    del request
    spec = server.model(body.model, "generation")
    text = await server.clients.generation.detokenize(spec.id, tuple(body.tokens))
    return DetokenizeReply(prompt=text, content=text)


async def apply_template(
    server: Server, request: Request, body: ApplyTemplateBody
) -> ApplyTemplateReply:
    """The text that a chat becomes for the model."""
    del request
    spec = server.model(body.model, "generation")
    prompt: ChatPrompt = body.prompt_of(server, body.messages)
    return ApplyTemplateReply(prompt=await server.clients.generation.render(spec.id, prompt))


def _pieces(tokens: Tokens) -> list[TokenPiece]:
    return [
        TokenPiece(id=token, piece=_piece(raw))
        for token, raw in zip(tokens.ids, tokens.pieces, strict=True)
    ]


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


def _strings(pieces: Sequence[bytes]) -> list[str]:
    return [piece.decode("utf-8", "replace") for piece in pieces]


ENDPOINTS = tuple(
    Endpoint("POST", prefix + path, handler, "generation", body=body, response=reply)
    for path, handler, body, reply in (
        ("/tokenize", tokenize, TokenizeBody, TokenizeAnswer),
        ("/detokenize", detokenize, DetokenizeBody, DetokenizeReply),
        ("/apply-template", apply_template, ApplyTemplateBody, ApplyTemplateReply),
    )
    for prefix in ("", "/v1")
)
