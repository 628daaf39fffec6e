"""A `Generator` over any token runner: from prompts to sequences, and the thread that runs them."""

from __future__ import annotations

from collections.abc import Iterable

from models.chat.template import ChatTemplate, Rendering
from models.continuous_batching.decode_loop import EngineStats
from models.continuous_batching.engine_thread import EngineThread
from models.continuous_batching.runner import Vocabulary
from models.continuous_batching.sequence import Sequence
from models.errors import EngineDeadError, InputTooLongError, InvalidInputError
from models.sampling import check_sampling
from models.types import ChatPrompt, GenerationRequest, Prompt, TextPrompt, TokenPrompt


class ContinuousGenerator:
    """The common part of the engines: what `Generator` asks for, and what tools want beside it.

    Prompt and completion of one request share `context_length` tokens.
    """

    def __init__(
        self,
        engine: EngineThread,
        vocabulary: Vocabulary,
        template: ChatTemplate | None,
        *,
        context_length: int,
        memory_bytes: int,
    ) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._template = template
        self._context_length = context_length
        self._memory_bytes = memory_bytes

    @property
    def alive(self) -> bool:
        return self._engine.alive

    @property
    def context_length(self) -> int:
        return self._context_length

    @property
    def memory_bytes(self) -> int:
        return self._memory_bytes

    def add(self, request_id: str, request: GenerationRequest) -> None:
        """See `Generator.add`."""
        self._engine.add(request_id, lambda: self._sequence(request_id, request))

    def cancel(self, request_id: str) -> None:
        self._engine.cancel(request_id)

    def close(self) -> None:
        self._engine.close()

    # --- beyond the protocol ------------------------------------------------------------------

    @property
    def stats(self) -> EngineStats:
        return self._engine.loop.stats

    def clear_prefix_cache(self) -> None:
        """Forget finished sequences, before the next step. Thread-safe."""
        self._engine.run(lambda loop: loop.cache.clear())

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of plain text: the texts of control tokens stay text.

        `add_special` adds the BOS token where the model wants one. Raises EngineDeadError.
        """
        return self._tokenize(text, add_special=add_special, parse_special=False)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids; control tokens have none. InvalidInputError for unknown ids."""
        tokens = list(ids)
        self._check_ids(tokens, "tokens")
        pieces = self._vocabulary.pieces
        return b"".join(pieces[token] for token in tokens).decode("utf-8", "replace")

    def render(self, prompt: ChatPrompt) -> str:
        """The text that a chat becomes. InvalidInputError when the model cannot take it."""
        return self._rendering(prompt).text

    # --- from a request to a sequence ---------------------------------------------------------

    def _sequence(self, request_id: str, request: GenerationRequest) -> Sequence:
        check_sampling(request.sampling, self._vocabulary.size)
        tokens = self._prompt_tokens(request.prompt)
        param = "messages" if isinstance(request.prompt, ChatPrompt) else "prompt"
        if not tokens:
            raise InvalidInputError("the prompt is empty", param)
        if len(tokens) > self._context_length:
            raise InputTooLongError(len(tokens), self._context_length, param)
        # a prompt that fills the context leaves its last token's successor, which needs no cell
        room = max(self._context_length - len(tokens), 1)
        wanted = request.sampling.max_tokens
        max_new = room if wanted is None else min(wanted, room)
        return Sequence.start(request_id, tokens, max_new, request.sampling)

    def _prompt_tokens(self, prompt: Prompt) -> list[int]:
        match prompt:
            case TokenPrompt(token_ids):
                self._check_ids(token_ids, "prompt")
                return list(token_ids)
            case TextPrompt(text):
                self._check_size(len(text), "prompt")
                return self._tokenize(text, add_special=True) if text else []
            case ChatPrompt():
                return self._chat_tokens(self._rendering(prompt))

    def _chat_tokens(self, rendering: Rendering) -> list[int]:
        self._check_size(len(rendering.text), "messages")
        tokens: list[int] = []
        for segment in rendering.segments:
            tokens += self._tokenize(segment.text, parse_special=segment.is_template)
        bos = self._vocabulary.bos
        if bos is not None and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    def _rendering(self, prompt: ChatPrompt) -> Rendering:
        if self._template is None:
            raise InvalidInputError("this model has no chat template", "messages")
        if not prompt.messages:
            raise InvalidInputError("there are no messages", "messages")
        self._check_size(sum(len(message.content) for message in prompt.messages), "messages")
        return self._template.render(prompt.messages)

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
