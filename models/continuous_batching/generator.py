"""A `Generator` over any token runner: from requests to sequences, and what runs them."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

from models.chat.format import ChatFormat
from models.chat.template import ChatTemplate
from models.continuous_batching.completion import Completion, ReasoningLimit
from models.continuous_batching.decode_loop import EngineStats
from models.continuous_batching.engine_thread import EngineThread
from models.continuous_batching.prompts import PromptReader, ReadPrompt
from models.continuous_batching.runner import Vocabulary
from models.continuous_batching.sampling import check_sampling
from models.continuous_batching.sequence import Sequence
from models.errors import InvalidInputError
from models.structured.compiler import GrammarCompiler
from models.structured.constraint import TokenConstraint
from models.structured.grammars import grammar_of
from models.types.generation import (
    ChatPrompt,
    GenerationRequest,
    Prompt,
    TextPrompt,
    TokenizeRequest,
    TokenLogprob,
    Tokens,
)

ANSWER_SHARE = 4
"""Of a context whose prompt may be shortened, a quarter is left to an answer of unknown length."""


class ContinuousGenerator:
    """The common part of the engines: what `Generator` asks for, and what tools want beside it.

    `template` and `chat_format` are None for a model that cannot chat. Prompt and completion of
    one request share `context_length` tokens.
    """

    def __init__(
        self,
        engine: EngineThread,
        vocabulary: Vocabulary,
        template: ChatTemplate | None,
        chat_format: ChatFormat | None,
        *,
        context_length: int,
        memory_bytes: int,
    ) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._prompts = PromptReader(vocabulary, template, context_length)
        self._format = chat_format
        self._visible = _visible_tokens(vocabulary, chat_format)
        self._compiler = GrammarCompiler(vocabulary)
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
        self._engine.add(request_id, lambda: self._sequence(request_id, request), request.caller)

    def cancel(self, request_id: str) -> None:
        self._engine.cancel(request_id)

    def tokenize(self, request: TokenizeRequest) -> Tokens:
        """See `Generator.tokenize`."""
        ids = tuple(self._prompts.tokenize(request))
        pieces = self._vocabulary.pieces
        return Tokens(ids, tuple(pieces[token] for token in ids), self._context_length)

    def detokenize(self, ids: SequenceOf[int]) -> str:
        """See `Generator.detokenize`."""
        return self._prompts.detokenize(ids)

    def render(self, prompt: ChatPrompt) -> str:
        """See `Generator.render`."""
        return self._prompts.render(prompt).text

    def close(self) -> None:
        self._engine.close()

    # --- beyond the protocol ------------------------------------------------------------------

    @property
    def stats(self) -> EngineStats:
        return self._engine.loop.stats

    def take_waits(self) -> list[float]:
        """Seconds that requests have waited to be admitted, each told once. Thread-safe."""
        waits = self._engine.loop.scheduler.waits
        return [waits.popleft() for _ in range(len(waits))]

    def clear_prefix_cache(self) -> None:
        """Forget finished sequences, before the next step. Thread-safe."""
        self._engine.run(lambda loop: loop.cache.clear())

    # --- from a request to a sequence ---------------------------------------------------------

    def _sequence(self, request_id: str, request: GenerationRequest) -> Sequence:
        sampling = request.sampling
        check_sampling(sampling, self._vocabulary.size)
        if sampling.max_tokens == 0 and not request.echo:
            raise InvalidInputError("'max_tokens' must be at least 1", "max_tokens")
        shorten_to = (
            self._prompt_share(sampling.max_tokens) if request.truncation == "auto" else None
        )
        prompt = self._prompts.read(request.prompt, shorten_to=shorten_to)
        # a prompt that fills the context leaves its last token's successor, which needs no cell
        room = max(self._context_length - len(prompt.tokens), 1)
        wanted = sampling.max_tokens
        sequence = Sequence.start(
            request_id,
            prompt.tokens,
            room if wanted is None else min(wanted, room),
            sampling,
            self._completion(request, prompt),
            self._constraint(request, prompt),
        )
        sequence.caller = request.caller
        if request.echo and sampling.logprobs is not None:
            first = self._vocabulary.pieces[prompt.tokens[0]]
            score = TokenLogprob(first.decode("utf-8", "replace"), first, None)
            sequence.completion.opening_logprobs = sequence.prompt_logprobs = [score]
        return sequence

    def _prompt_share(self, max_tokens: int | None) -> int:
        """Tokens that a prompt may have when it is to be shortened."""
        context = self._context_length
        answer = context // ANSWER_SHARE if max_tokens is None else min(max_tokens, context // 2)
        return max(context - answer, 1)

    def _completion(self, request: GenerationRequest, prompt: ReadPrompt) -> Completion:
        completion = Completion(
            self._vocabulary.pieces,
            stop=request.sampling.stop,
            min_tokens=request.sampling.min_tokens,
            opening=self._echo(request.prompt, prompt) if request.echo else "",
        )
        chat = request.prompt
        if isinstance(chat, ChatPrompt) and self._format is not None:
            completion.parser = self._format.parser(chat, prompt.text)
        if completion.parser is not None:
            completion.visible = self._visible
            completion.limit = self._reasoning_limit(chat, request.thinking_budget)
            completion.check_limit()
        return completion

    def _reasoning_limit(self, chat: Prompt, budget: int | None) -> ReasoningLimit | None:
        if budget is None or self._format is None or not isinstance(chat, ChatPrompt):
            return None
        end = self._format.end_of_reasoning(chat)
        if not end:
            return None
        return ReasoningLimit(budget, tuple(self._prompts.marker(end)))

    def _echo(self, prompt: Prompt, read: ReadPrompt) -> str:
        if isinstance(prompt, TextPrompt):
            return read.text
        return self._prompts.detokenize(read.tokens)

    def _constraint(self, request: GenerationRequest, prompt: ReadPrompt) -> TokenConstraint | None:
        chat, output = request.prompt, request.output_format
        if isinstance(chat, ChatPrompt) and self._format is not None:
            grammar = self._format.grammar(chat, output, prompt.text)
        else:
            grammar = None if output is None else grammar_of(output, output.param)
        if grammar is None:
            return None
        return self._compiler.compile(grammar, "tools" if output is None else output.param)


def _visible_tokens(vocabulary: Vocabulary, chat_format: ChatFormat | None) -> dict[int, bytes]:
    """Control tokens that a chat's parser must see, and what they look like to it."""
    if chat_format is None:
        return {}
    known = vocabulary.control_tokens
    return {known[text]: text.encode() for text in chat_format.visible_texts if text in known}
