"""Texts to tokens with characters and words, and long texts to windows, for token classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Encoding, Tokenizer

from models.encoders.tokenization import TextTokenizer, TokenSequence
from models.errors import ModelLoadError

OVERLAP = 0.25
"""Share of a window that it has in common with the next."""
SMALLEST_WINDOW = 8
"""Tokens; with less, windows would not overlap."""


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The tokens of a text without special tokens.

    `marked`: pieces of a word after its first look different ("##ing"). `unknown` is the id of
    what has no token of its own.
    """

    text: str
    ids: Sequence[int]
    tokens: Sequence[str] = field(repr=False)
    spans: Sequence[tuple[int, int]]
    marked: bool
    unknown: int | None

    def __len__(self) -> int:
        return len(self.ids)

    def continues(self) -> list[bool]:
        """Whether each token belongs to the word of the one before.

        By the rule of transformers' pipeline: a marked token is longer than its characters; of
        other tokenizers, a token whose characters have no space before them.
        """
        return [self._continues(place) for place in range(len(self))]

    def _continues(self, place: int) -> bool:
        start, end = self.spans[place]
        if self.ids[place] == self.unknown:
            return False
        if self.marked:
            return len(self.tokens[place]) != end - start
        return start > 0 and " " not in self.text[start - 1 : start + 1]


@dataclass(frozen=True, slots=True)
class Window(TokenSequence):
    """The tokens [`first`, `first` + `count`) of the `place`-th text, between special tokens."""

    text: TokenizedText | None = None
    place: int = 0
    first: int = 0
    count: int = 0


class WordTokenizer:
    """A model's tokenizer for what is said of single tokens."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._backend: Tokenizer = tokenizer.backend
        frame = self._backend.encode("a")
        mask = frame.special_tokens_mask
        before, after = mask.index(0), mask[::-1].index(0)
        types = frame.type_ids
        self._before = frame.ids[:before], types[:before]
        self._after = frame.ids[len(mask) - after :], types[len(mask) - after :]
        self._type = types[before] if tokenizer.has_types else None
        model = self._backend.model
        self._marked = bool(getattr(model, "continuing_subword_prefix", None))
        unknown = getattr(model, "unk_token", None)
        self._unknown = self._backend.token_to_id(unknown) if unknown else None

    @property
    def specials(self) -> int:
        return len(self._before[0]) + len(self._after[0])

    @property
    def before(self) -> int:
        """Special tokens at the beginning of a window."""
        return len(self._before[0])

    def tokenized(self, texts: Sequence[str]) -> list[TokenizedText]:
        """In one parallel call."""
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [self._text(text, entry) for text, entry in zip(texts, encodings, strict=True)]

    def windows(self, text: TokenizedText, place: int, limit: int) -> list[Window]:
        """Windows of at most `limit` tokens, special ones included; none for a blank text."""
        room = limit - self.specials
        step = room - int(room * OVERLAP)
        starts = range(0, max(len(text) - room, 0) + step, step) if len(text) else ()
        return [self._window(text, place, start, room) for start in starts]

    def _window(self, text: TokenizedText, place: int, first: int, room: int) -> Window:
        ids = text.ids[first : first + room]
        types = None
        if self._type is not None:
            types = [*self._before[1], *[self._type] * len(ids), *self._after[1]]
        return Window(
            [*self._before[0], *ids, *self._after[0]],
            types,
            text=text,
            place=place,
            first=first,
            count=len(ids),
        )

    def _text(self, text: str, encoding: Encoding) -> TokenizedText:
        return TokenizedText(
            text, encoding.ids, encoding.tokens, encoding.offsets, self._marked, self._unknown
        )


def check_window(max_tokens: int) -> int:
    """The size of windows, when it is one. Raises ModelLoadError."""
    if max_tokens < SMALLEST_WINDOW:
        raise ModelLoadError(f"the model reads less than {SMALLEST_WINDOW} tokens at a time")
    return max_tokens
