"""Texts to token sequences with the model's own fast tokenizer (Rust, parallel, frees the GIL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence

from models.encoders.token_frame import TokenFrame, learn_frame
from models.errors import InvalidInputError, ModelLoadError
from models.types.texts import TextToken, TruncationSide

NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One input of the model; `type_ids` tell a pair's query (0) from its document (1).

    With `spans`, [start, stop) each, its row is a matrix: a pooled row per span. `item`: which of
    its request's items it is a part of, where items may have several sequences.
    """

    ids: Sequence[int]
    type_ids: Sequence[int] | None = None
    spans: Sequence[tuple[int, int]] | None = None
    item: int = 0

    def __len__(self) -> int:
        return len(self.ids)


Content = Any
"""The tokens of one text before special tokens are added; its `len` is their number."""


class EncoderTokenizer(Protocol):
    """What an encoder's codec needs of a tokenizer; `TextTokenizer` says what each does."""

    vocabulary_size: int
    has_types: bool

    def contents(self, texts: Sequence[str]) -> list[Content]: ...

    def control(self, text: str) -> list[int]: ...

    def cut(self, content: Content, limit: int, side: TruncationSide | None = None) -> None: ...

    def windows(self, content: Content, limit: int, overlap: int) -> list[Content]: ...

    def single(self, content: Content, *, specials: bool = True) -> TokenSequence: ...

    def joined(self, contents: Sequence[Content]) -> TokenSequence: ...

    def pair(self, query: Content, document: Content) -> TokenSequence: ...

    def specials(self, *, pair: bool) -> int: ...

    def tokens(self, text: str, *, specials: bool = True) -> list[TextToken]: ...

    def text(self, ids: Sequence[int], *, skip_specials: bool = True) -> str: ...


class TextTokenizer:
    """Encodes without padding, in two steps: contents, which can be cut, then special tokens.

    `cut_side` is the end at which the model's own tokenizer cuts.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        has_types: bool,
        limit: int = NO_LIMIT,
        cut_side: TruncationSide = "right",
    ) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._literal = tokenizer
        self.has_types = has_types
        self.limit = limit
        self._cut_side = cut_side
        self.vocabulary_size = tokenizer.get_vocab_size(with_added_tokens=True)
        self._single = learn_frame(tokenizer, 1)
        self._plain = learn_frame(tokenizer, 1, specials=False)
        self._pair = learn_frame(tokenizer, 2)

    @property
    def backend(self) -> Tokenizer:
        """The tokenizer itself, for what is said of single tokens."""
        return self._tokenizer

    def contents(self, texts: Sequence[str]) -> list[list[int]]:
        """Without special tokens, in one parallel call."""
        encodings = self._literal.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def control(self, text: str) -> list[int]:
        """The tokens of a template's own text, in which control tokens stand for themselves."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def control_names(self) -> tuple[str, ...]:
        """The texts of the control tokens."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        return tuple(token.content for token in added if token.special)

    def read_literally(self) -> None:
        """From now on the texts of control tokens are text like any other in `contents`."""
        self._literal = Tokenizer.from_str(self._tokenizer.to_str())
        self._literal.encode_special_tokens = True

    def cut(self, content: list[int], limit: int, side: TruncationSide | None = None) -> None:
        """Keep `limit` tokens of the content, in place."""
        surplus = len(content) - limit
        if surplus > 0:
            left = (side or self._cut_side) == "left"
            del content[slice(surplus) if left else slice(limit, None)]

    def windows(self, content: list[int], limit: int, overlap: int) -> list[list[int]]:
        """The content in pieces of at most `limit` tokens; neighbours share `overlap` of them."""
        starts = range(0, max(len(content) - overlap, 1), limit - overlap)
        return [content[start : start + limit] for start in starts]

    def single(self, content: list[int], *, specials: bool = True) -> TokenSequence:
        """One text with its special tokens, or without."""
        return self._sequence(self._single if specials else self._plain, content)

    def joined(self, contents: Sequence[list[int]]) -> TokenSequence:
        """Several texts as one, with special tokens around it and a span for each of them."""
        sequence = self._sequence(self._single, list(chain.from_iterable(contents)))
        ends = list(accumulate(map(len, contents), initial=len(self._single.before)))
        return replace(sequence, spans=tuple(pairwise(ends)))

    def pair(self, query: list[int], document: list[int]) -> TokenSequence:
        """Two texts with their special tokens."""
        return self._sequence(self._pair, query, document)

    def specials(self, *, pair: bool) -> int:
        """How many special tokens a single text or a pair gets."""
        return int(self._tokenizer.num_special_tokens_to_add(pair))

    def tokens(self, text: str, *, specials: bool = True) -> list[TextToken]:
        """The tokens of a text with the characters that they stand for."""
        encoding = self._tokenizer.encode(text, add_special_tokens=specials)
        columns = (encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets)
        return [
            TextToken(token_id, token, True, None, None)
            if special
            else TextToken(token_id, text[start:stop], False, start, stop)
            for token_id, token, special, (start, stop) in zip(*columns, strict=True)
        ]

    def text(self, ids: Sequence[int], *, skip_specials: bool = True) -> str:
        """What tokens say. InvalidInputError for ids outside the vocabulary."""
        if any(not 0 <= token < self.vocabulary_size for token in ids):
            raise InvalidInputError("'ids' has a token outside the model's vocabulary.", "ids")
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_specials))

    def _sequence(self, frame: TokenFrame, *contents: list[int]) -> TokenSequence:
        types = frame.types(*contents) if self.has_types else None
        return TokenSequence(frame.ids(*contents), types)


def check_text(text: str, param: str) -> None:
    """Refuse an empty text, and what no tokenizer can read."""
    if not text:
        raise InvalidInputError(f"'{param}' must not contain an empty string.", param)
    check_unicode(text, param)


def check_unicode(text: str, param: str) -> None:
    """Refuse half a surrogate pair, which JSON lets through and tokenizers do not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"'{param}' is not valid Unicode text.", param) from error


def read_tokenizer_file(path: Path) -> Tokenizer:
    """The tokenizer.json of a folder that has no transformers configuration."""
    try:
        return Tokenizer.from_file(str(path / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelLoadError("tokenizer.json is missing or broken") from error


def lowercased(tokenizer: Tokenizer) -> None:
    """Lower-case every text first, as `do_lower_case` of sentence-transformers asks."""
    first = Lowercase()
    rest = tokenizer.normalizer
    tokenizer.normalizer = NormalizerSequence([first, rest]) if rest is not None else first
