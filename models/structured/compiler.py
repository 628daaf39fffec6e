"""From a grammar's text to the constraint of one request, for one model's vocabulary."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from models.continuous_batching.runner import Vocabulary
from models.errors import InvalidInputError
from models.structured.matcher import GrammarConstraint

MAX_GRAMMAR = 512 * 1024
"""Characters: the schemas of many tools at once."""

MAX_COMPILED = 64
"""Compiled grammars that are kept; of one schema of the largest size, 3 MB each."""

_MAX_REASON = 200
_NO_FORCING = '%llguidance {"no_forcing": true}\n'
"""Where the next text is certain, llguidance would allow its usual first token only. It would need
the model's tokeniser for that in the middle of a step, and tokenisers that put a space before
everything would mislead it; without, the model chooses among the ways to write that text."""


def _limits() -> LLParserLimits:
    """Fuel for one step runs out after about 10 ms, states after about 25 MB; the library's own
    limits are 75 ms and 116 MB with patterns like `(.*a.{50}){5}`."""
    return LLParserLimits(
        initial_lexer_fuel=500_000,
        step_lexer_fuel=100_000,
        step_max_items=20_000,
        max_lexer_states=50_000,
        max_grammar_size=100_000,
        verbose_errors=False,
    )


class GrammarCompiler:
    """Compiles grammars for one vocabulary, from any thread. What llguidance needs to know of the
    vocabulary is prepared when the first grammar comes: 0.1 s for 49,000 tokens."""

    def __init__(self, vocabulary: Vocabulary, *, max_compiled: int = MAX_COMPILED) -> None:
        self._vocabulary = vocabulary
        self._limits = _limits()
        self._max_compiled = max_compiled
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def __len__(self) -> int:
        """Compiled grammars at hand."""
        return len(self._compiled)

    def compile(self, grammar: str, param: str) -> GrammarConstraint:
        """A constraint at the beginning of a grammar, for one completion.

        Raises InvalidInputError, naming the request's field `param`, when the grammar is not
        valid, too complex, or nothing fits it.
        """
        if len(grammar) > MAX_GRAMMAR:
            raise InvalidInputError("The schemas are too large together.", param)
        matcher = self._copy(grammar)
        if matcher is None:
            matcher = self._build(grammar, param)
            self._keep(grammar, matcher.deep_copy())
        return GrammarConstraint(matcher, self._vocabulary.size)

    def _copy(self, grammar: str) -> LLMatcher | None:
        with self._lock:
            known = self._compiled.get(grammar)
            if known is None:
                return None
            self._compiled.move_to_end(grammar)
            return known.deep_copy()

    def _keep(self, grammar: str, matcher: LLMatcher) -> None:
        with self._lock:
            self._compiled[grammar] = matcher
            while len(self._compiled) > self._max_compiled:
                self._compiled.popitem(last=False)

    def _build(self, grammar: str, param: str) -> LLMatcher:
        try:
            matcher = LLMatcher(
                self._prepared(), _NO_FORCING + grammar, log_level=0, limits=self._limits
            )
        except UnicodeEncodeError:
            raise InvalidInputError("The output format is not valid Unicode.", param) from None
        if matcher.is_error():
            raise InvalidInputError(
                f"The output cannot be held to this format: {_reason(matcher)}.", param
            )
        # The first mask shows whether anything fits, and its states are computed once for all.
        matcher.compute_bitmask()
        if matcher.is_error():
            raise InvalidInputError("No output fits this format.", param)
        return matcher

    def _prepared(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _tokenizer_of(self._vocabulary)
            return self._tokenizer


def _reason(matcher: LLMatcher) -> str:
    """llguidance's message without its position and the excerpts of the grammar."""
    text = re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", matcher.get_error())
    text = re.split(r"\n +\d+ \| |\n<", text, maxsplit=1)[0]
    return " ".join(text.split())[:_MAX_REASON].rstrip(".")


class _KnownTokens:
    """A vocabulary as llguidance's `TokenizerWrapper` wants it.

    Tokens that write nothing are control tokens. They get names, because each needs one, that no
    text can be: only their ids stand for them. So do tokens that begin with the byte by which
    llguidance marks control tokens; it is in no valid text.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        pieces = vocabulary.pieces
        self.special_token_ids = [
            t for t, piece in enumerate(pieces) if not piece or piece.startswith(b"\xff")
        ]
        self.tokens = list(pieces)
        for special in self.special_token_ids:
            self.tokens[special] = b"<|control-%d|>" % special
        self.bos_token_id = vocabulary.bos
        self.eos_token_id = min(vocabulary.end_tokens)

    def __call__(self, text: bytes) -> list[int]:
        return self._vocabulary.tokenize(
            text.decode("utf-8", "replace"), add_special=False, parse_special=False
        )


def _tokenizer_of(vocabulary: Vocabulary) -> LLTokenizer:
    return LLTokenizer(
        TokenizerWrapper(_KnownTokens(vocabulary)),
        n_vocab=vocabulary.size,
        eos_token=sorted(vocabulary.end_tokens),
    )
