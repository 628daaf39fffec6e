"""Texts to token sequences with the model's own fast tokenizer (Rust, parallel, frees the GIL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Encoding, Tokenizer
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence

from models.errors import InvalidInputError, ModelLoadError

NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One input of the model; `type_ids` tell a pair's query (0) from its document (1)."""

    ids: Sequence[int]
    type_ids: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.ids)


class TextTokenizer:
    """Encodes without padding; truncation keeps the special tokens, as the model expects them."""

    def __init__(self, tokenizer: Tokenizer, *, has_types: bool, limit: int = NO_LIMIT) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self.has_types = has_types
        self.limit = limit
        self.vocabulary_size = tokenizer.get_vocab_size(with_added_tokens=True)

    def texts(self, texts: Sequence[str]) -> list[TokenSequence]:
        """Whole texts with special tokens, in one parallel call."""
        return [self._sequence(e) for e in self._tokenizer.encode_batch_fast(list(texts))]

    def cut_text(self, text: str, limit: int) -> TokenSequence:
        """At most `limit` tokens, special tokens included."""
        content = self._tokenizer.encode(text, add_special_tokens=False)
        content.truncate(max(0, limit - self._tokenizer.num_special_tokens_to_add(False)))
        return self._sequence(self._tokenizer.post_process(content))

    def plain(self, texts: Sequence[str]) -> list[Encoding]:
        """Without special tokens: the parts of pairs."""
        return self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)

    def pair(self, query: Encoding, document: Encoding) -> TokenSequence:
        return self._sequence(self._tokenizer.post_process(query, document))

    @property
    def pair_overhead(self) -> int:
        """Special tokens that a pair gets."""
        return int(self._tokenizer.num_special_tokens_to_add(True))

    def _sequence(self, encoding: Encoding) -> TokenSequence:
        return TokenSequence(encoding.ids, encoding.type_ids if self.has_types else None)


def with_limit(sequence: TokenSequence, limit: int) -> TokenSequence:
    """The first `limit` tokens of token ids that a client sent."""
    return replace(sequence, ids=sequence.ids[:limit])


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
