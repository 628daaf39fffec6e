"""From a grammar's text to the constraint of one request, for one model's vocabulary."""

from __future__ import annotations

import re
import threading

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from models.continuous_batching.runner import Vocabulary
from models.errors import InvalidInputError
from models.structured.matcher import GrammarConstraint

MAX_GRAMMAR = 512 * 1024
"""Characters: the schemas of many tools at once."""

_MAX_REASON = 200
_NO_FORCING = '%llguidance {"no_forcing": true}\n'
"""Where the next text is certain, llguidance would allow its usual first token only. It would need
the model's tokeniser for that in the middle of a step, and tokenisers that put a space before
everything would mislead it; without, the model chooses among the ways to write that text."""


def _limits() -> LLParserLimits:
    """Measured with patterns like `(.*a.{50}){5}` and 49,000 tokens: a step takes 50 ms at most and
    a grammar 30 MB; with the library's own limits 75 ms and 116 MB. Usual patterns with classes of
    Unicode need up to half of the fuel of a step when there are 150,000 tokens."""
    return LLParserLimits(
        initial_lexer_fuel=500_000,
        step_lexer_fuel=100_000,
        step_max_items=20_000,
        max_lexer_states=50_000,
        max_grammar_size=100_000,
        verbose_errors=False,
    )


def compiles(grammar: str) -> bool:
    """Whether a grammar is valid and not too complex, whatever the vocabulary."""
    return not LLMatcher.validate_grammar_with_warnings(grammar, limits=_limits())[0]


class GrammarCompiler:
    """Compiles grammars for one vocabulary, from any thread. What llguidance needs to know of the
    vocabulary is prepared when the first grammar comes: 0.1 s for 49,000 tokens.

    Compiled grammars are not kept: a usual schema takes 1 ms. Copies of one would share its
    automaton, and with it the limits, so that one output could make others fail.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._limits = _limits()
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None

    def compile(self, grammar: str, param: str) -> GrammarConstraint:
        """A constraint at the beginning of a grammar, for one completion.

        Raises InvalidInputError, naming the request's field `param`, when the grammar is not
        valid, too complex, or nothing fits it.
        """
        _check_text(grammar, param)
        if not self._vocabulary.end_tokens:
            fault = "This model has no token that ends a text, and cannot be held to a format."
            raise InvalidInputError(fault, param)
        text = _NO_FORCING + grammar
        matcher = LLMatcher(self._prepared(), text, log_level=0, limits=self._limits)
        if not matcher.is_error():
            matcher.compute_bitmask()  # shows whether anything fits
        if matcher.is_error():
            fault = f"The output cannot be held to this format: {_reason(matcher)}."
            raise InvalidInputError(fault, param)
        return GrammarConstraint(matcher, self._vocabulary.size, param)

    def _prepared(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _tokenizer_of(self._vocabulary)
            return self._tokenizer


def _check_text(grammar: str, param: str) -> None:
    if len(grammar) > MAX_GRAMMAR:
        raise InvalidInputError("The schemas are too large together.", param)
    try:
        grammar.encode()
    except UnicodeEncodeError:
        raise InvalidInputError("The output format is not valid Unicode.", param) from None


def _reason(matcher: LLMatcher) -> str:
    """llguidance's message without its position and the excerpts of the grammar."""
    text = re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", matcher.get_error())
    text = re.split(r"\n +\d+ \| |\n<", text, maxsplit=1)[0]
    if text == "NoExtensionBias":
        return "nothing fits it"
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
