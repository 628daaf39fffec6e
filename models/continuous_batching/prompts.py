"""From prompts to tokens: chat templates, plain texts, gaps to fill, and what is too long."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from models.chat.template import ChatTemplate
from models.chat.template_shield import Rendering
from models.chat.truncation import turn_starts, without_turns_before
from models.continuous_batching.runner import Vocabulary
from models.errors import EngineDeadError, InputTooLongError, InvalidInputError
from models.types.generation import (
    ChatPrompt,
    InfillPrompt,
    Prompt,
    TextPrompt,
    TokenizeRequest,
    TokenPrompt,
)


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """Token ids of a prompt, and its text where it is one."""

    tokens: list[int]
    text: str


class PromptReader:
    """Reads the prompts of one model, on any thread.

    Raises InvalidInputError for what the model cannot take, InputTooLongError, EngineDeadError.
    """

    def __init__(
        self, vocabulary: Vocabulary, template: ChatTemplate | None, context_length: int
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._context_length = context_length

    def read(self, prompt: Prompt, *, shorten_to: int | None = None) -> ReadPrompt:
        """The tokens of a prompt that fits the context.

        With `shorten_to`, what is too long for so many tokens loses its oldest part instead: whole
        turns of a chat, the first tokens of a text.
        """
        if isinstance(prompt, ChatPrompt):
            return self._chat(prompt, shorten_to)
        read = self._text(prompt, shorten_to)
        if not read.tokens:
            raise InvalidInputError("the prompt is empty", "prompt")
        limit = self._context_length if shorten_to is None else shorten_to
        if len(read.tokens) > limit:
            raise InputTooLongError(len(read.tokens), limit, "prompt")
        return read

    def tokenize(self, request: TokenizeRequest) -> list[int]:
        """The tokens of a prompt, however many."""
        if isinstance(request.prompt, ChatPrompt):
            return self._chat_tokens(self.render(request.prompt))
        return self._tokenize(
            request.prompt.text,
            add_special=request.add_special,
            parse_special=request.parse_special,
        )

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids; control tokens have none. InvalidInputError for unknown ids."""
        tokens = list(ids)
        self._check_ids(tokens, "tokens")
        pieces = self._vocabulary.pieces
        return b"".join(pieces[token] for token in tokens).decode("utf-8", "replace")

    def render(self, prompt: ChatPrompt) -> Rendering:
        """What a chat becomes."""
        if self._template is None:
            raise InvalidInputError("this model has no chat template", "messages")
        if not prompt.messages:
            raise InvalidInputError("there are no messages", "messages")
        return self._template.render(prompt)

    def marker(self, text: str) -> list[int]:
        """Tokens of a text that is the model's own, such as the end of its reasoning."""
        return self._tokenize(text, parse_special=True)

    # --- texts --------------------------------------------------------------------------------

    def _text(
        self, prompt: TextPrompt | TokenPrompt | InfillPrompt, shorten_to: int | None
    ) -> ReadPrompt:
        match prompt:
            case TokenPrompt(token_ids):
                self._check_ids(token_ids, "prompt")
                return ReadPrompt(self._last(list(token_ids), shorten_to), "")
            case TextPrompt(text):
                if shorten_to is None:
                    self._check_size(len(text), "prompt")
                else:  # before a second of tokenising what will be dropped
                    text = text[-shorten_to * self._vocabulary.longest_piece :]
                tokens = self._tokenize(text, add_special=True) if text else []
                return ReadPrompt(self._last(tokens, shorten_to), text)
            case InfillPrompt(prefix, suffix):
                self._check_size(len(prefix) + len(suffix), "prompt")
                return ReadPrompt(self._infill_tokens(prefix, suffix, shorten_to), prefix)

    def _infill_tokens(self, prefix: str, suffix: str, shorten_to: int | None) -> list[int]:
        """Prefix, suffix, middle: the order in which such models are trained (Bavarian et al.
        2022, arXiv:2207.14255). Only the prefix is shortened."""
        marks = self._vocabulary.infill_tokens
        if marks is None:
            raise InvalidInputError("this model cannot fill in the middle of a text", "suffix")
        before, after, middle = marks
        bos = self._vocabulary.bos
        head = [before] if bos is None else [bos, before]
        tail = [after, *self._tokenize(suffix), middle]
        start = self._tokenize(prefix)
        excess = 0 if shorten_to is None else len(head) + len(start) + len(tail) - shorten_to
        return [*head, *start[max(excess, 0) :], *tail]

    def _last(self, tokens: list[int], count: int | None) -> list[int]:
        """The last `count` tokens; the BOS token stays the first one."""
        if count is None or len(tokens) <= count:
            return tokens
        bos = self._vocabulary.bos
        head = [bos] if bos is not None and tokens[0] == bos else []
        return head + tokens[len(tokens) - count + len(head) :]

    # --- chats --------------------------------------------------------------------------------

    def _chat(self, prompt: ChatPrompt, shorten_to: int | None) -> ReadPrompt:
        if shorten_to is None:
            return self._chat_that_fits(prompt, self._context_length)
        read: dict[int, ReadPrompt] = {}

        def fits(start: int) -> bool:
            shorter = without_turns_before(prompt, start)
            try:
                read[start] = self._chat_that_fits(shorter, shorten_to)
            except InputTooLongError:
                return False
            return True

        whole, *later = turn_starts(prompt.messages)
        start = whole
        if not fits(whole) and later:
            start = later[bisect_left(later[:-1], True, key=fits)]
        if start not in read:  # the last turn alone, which was not tried, or nothing fits
            return self._chat_that_fits(without_turns_before(prompt, start), shorten_to)
        return read[start]

    def _chat_that_fits(self, prompt: ChatPrompt, limit: int) -> ReadPrompt:
        self._check_size(sum(len(message.content) for message in prompt.messages), "messages")
        rendering = self.render(prompt)
        text = rendering.text
        self._check_size(len(text), "messages")
        tokens = self._chat_tokens(rendering)
        if not tokens:
            raise InvalidInputError("the chat template made nothing of the messages", "messages")
        if len(tokens) > limit:
            raise InputTooLongError(len(tokens), limit, "messages")
        return ReadPrompt(tokens, text)

    def _chat_tokens(self, rendering: Rendering) -> list[int]:
        tokens: list[int] = []
        for segment in rendering.segments:
            tokens += self._tokenize(segment.text, parse_special=segment.is_template)
        bos = self._vocabulary.bos
        if bos is not None and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    # --- checks -------------------------------------------------------------------------------

    def _tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        try:
            return self._vocabulary.tokenize(
                text, add_special=add_special, parse_special=parse_special
            )
        except ValueError as error:
            raise EngineDeadError("the engine has stopped") from error

    def _check_size(self, characters: int, param: str) -> None:
        """Refuse what cannot fit whatever its tokens are, before a second of tokenising."""
        longest = self._vocabulary.longest_piece
        if characters > self._context_length * longest:
            raise InputTooLongError(-(-characters // longest), self._context_length, param)

    def _check_ids(self, ids: Iterable[int], param: str) -> None:
        if not all(0 <= token < self._vocabulary.size for token in ids):
            raise InvalidInputError("a token id is not in the vocabulary of this model", param)
