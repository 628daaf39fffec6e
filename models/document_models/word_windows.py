"""Words of a page to tokens with places, in as many windows as they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tokenizers import Encoding, Tokenizer

from models.document_models.page_words import NOWHERE, PageWord, Place
from models.transformers_loading import own_copy

OVERLAP = 128
"""Tokens that neighbouring windows have in common, as far as the window has twice as many."""


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens of one pass. Those of `context` are the page's, from its token `first` on."""

    ids: Sequence[int]
    types: Sequence[int]
    places: Sequence[Place]
    context: range
    first: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class PageWindows:
    """`words`: for every token of the page the index of its word."""

    windows: tuple[Window, ...]
    words: tuple[int, ...]

    def of_token(self, token: int) -> tuple[int, int]:
        """The window where most is around a token of the page, and the place in it."""
        where = [
            (min(place, len(window.context) - 1 - place), -index, place)
            for index, window in enumerate(self.windows)
            if 0 <= (place := token - window.first) < len(window.context)
        ]
        _, index, place = max(where)
        return -index, self.windows[-index].context[place]


class WindowEncoder:
    """`max_tokens` of one window. `separator`: the place of the tokens that end a sequence."""

    def __init__(self, tokenizer: Any, max_tokens: int, separator: Place) -> None:
        self._questions = own_copy(tokenizer)
        self._tokens = own_copy(tokenizer)
        self._end = tokenizer.sep_token_id
        self._separator = separator
        self._max_tokens = max_tokens

    def room(self, question: str | None) -> int:
        """Tokens of the page that fit beside the question. Thread-safe."""
        return self._max_tokens - len(_encoded(self._questions, question, []).ids)

    def windows(self, words: Sequence[PageWord], question: str | None = None) -> PageWindows:
        """One thread at a time. There is always a window, also of no words."""
        overlap = min(OVERLAP, self.room(question) // 2)
        sequence, cut = (0, "only_first") if question is None else (1, "only_second")
        self._tokens.enable_truncation(self._max_tokens, stride=overlap, strategy=cut)
        encoding = _encoded(self._tokens, question, [word.text for word in words])
        parts = [encoding, *encoding.overflowing]
        spans = [_span(part, sequence) for part in parts]
        steps = [len(span) - overlap for span in spans[:-1]]
        starts = list(accumulate(steps, initial=0))
        windows = tuple(
            self._window(part, span, first, words)
            for part, span, first in zip(parts, spans, starts, strict=True)
        )
        return PageWindows(windows, _token_words(parts, spans, starts))

    def _window(self, part: Encoding, span: range, first: int, words: Sequence[PageWord]) -> Window:
        places = [self._separator if token == self._end else NOWHERE for token in part.ids]
        for place, word in zip(span, _words(part, span), strict=True):
            places[place] = words[word].place
        return Window(part.ids, part.type_ids, places, span, first)


def _encoded(tokenizer: Tokenizer, question: str | None, words: Sequence[str]) -> Encoding:
    if question is None:
        return tokenizer.encode(words, is_pretokenized=True)
    return tokenizer.encode(question.split(), words, is_pretokenized=True)


def _words(part: Encoding, span: range) -> list[int]:
    """The word of each token of the page."""
    return [word for word in part.word_ids[span.start : span.stop] if word is not None]


def _span(part: Encoding, sequence: int) -> range:
    """Where the page's tokens are, which stand together."""
    inside = [place for place, of in enumerate(part.sequence_ids) if of == sequence]
    return range(inside[0], inside[-1] + 1) if inside else range(0)


def _token_words(
    parts: Sequence[Encoding], spans: Sequence[range], starts: Sequence[int]
) -> tuple[int, ...]:
    words: list[int] = []
    for part, span, first in zip(parts, spans, starts, strict=True):
        words[first:] = _words(part, span)
    return tuple(words)
