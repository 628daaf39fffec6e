"""A GGUF file's own tokenizer, as the codecs of encoders see it."""

from __future__ import annotations

from collections.abc import Sequence

from models.encoders.tokenization import TokenSequence
from models.errors import InvalidInputError
from models.llama_cpp.bindings import NativeModel
from models.types.texts import TextToken, TruncationSide

Content = list[int]
"""Token ids of one text, without special tokens."""
PROBE = "a"


class GgufTokenizer:
    """An `EncoderTokenizer`. Text that looks like a control token is read as text.

    llama.cpp knows no token types and does not say which characters a token stands for.
    """

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self.vocabulary_size = model.size
        self.has_types = False
        self._prefix, self._suffix = _around(model)
        separator = model.separator
        between = [separator] if separator is not None and model.ends_texts else []
        self._between = [*self._suffix, *between]

    def contents(self, texts: Sequence[str]) -> list[Content]:
        """Without special tokens; may be called from any thread."""
        return [self._ids(text) for text in texts]

    def control(self, text: str) -> Content:
        """The tokens of a template's own text, in which control tokens stand for themselves."""
        return self._model.tokenize(text, add_special=False, parse_special=True)

    def control_names(self) -> tuple[str, ...]:
        """The texts of the control tokens."""
        return tuple(self._model.control_tokens)

    def cut(self, content: Content, limit: int, side: TruncationSide | None = None) -> None:
        """Keep `limit` tokens of the content, in place."""
        surplus = len(content) - limit
        if surplus > 0:
            del content[slice(0, surplus) if side == "left" else slice(limit, None)]

    def windows(self, content: Content, limit: int, overlap: int) -> list[Content]:
        """The content in pieces of at most `limit` tokens; neighbours share `overlap` of them."""
        last = max(len(content) - overlap, 1)
        starts = range(0, last, limit - overlap)
        return [content[start : start + limit] for start in starts]

    def single(self, content: Content, *, specials: bool = True) -> TokenSequence:
        """One text with its special tokens, or without."""
        return TokenSequence([*self._prefix, *content, *self._suffix] if specials else content)

    def joined(self, contents: Sequence[Content]) -> TokenSequence:
        """Pooling happens in llama.cpp: there is none for parts of a sequence."""
        raise InvalidInputError("This model does not pool parts of a text.", "late_chunking")

    def pair(self, query: Content, document: Content) -> TokenSequence:
        """Two texts with their special tokens."""
        return TokenSequence([*self._prefix, *query, *self._between, *document, *self._suffix])

    def specials(self, *, pair: bool) -> int:
        """How many special tokens a single text or a pair gets."""
        return len(self._prefix) + len(self._suffix) + pair * len(self._between)

    def tokens(self, text: str, *, specials: bool = True) -> list[TextToken]:
        """The tokens of a text; where in the text they stand is not known."""
        plain = [
            TextToken(token, self.text([token]), False, None, None) for token in self._ids(text)
        ]
        if not specials:
            return plain
        before, after = map(self._special, (self._prefix, self._suffix))
        return [*before, *plain, *after]

    def text(self, ids: Sequence[int], *, skip_specials: bool = True) -> str:
        """What tokens say. InvalidInputError for ids outside the vocabulary."""
        if any(not 0 <= token < self.vocabulary_size for token in ids):
            raise InvalidInputError("'ids' has a token outside the model's vocabulary.", "ids")
        names = {} if skip_specials else self._names()
        pieces = (names.get(token, self._model.pieces[token]) for token in ids)
        return b"".join(pieces).decode("utf-8", "replace")

    def _ids(self, text: str) -> Content:
        return self._model.tokenize(text, add_special=False, parse_special=False)

    def _names(self) -> dict[int, bytes]:
        return {token: name.encode() for name, token in self._model.control_tokens.items()}

    def _special(self, ids: Content) -> list[TextToken]:
        names = self._names()
        return [TextToken(i, names.get(i, b"").decode(), True, None, None) for i in ids]


def _around(model: NativeModel) -> tuple[Content, Content]:
    """The special tokens before and after every text, found out by trying."""
    plain = model.tokenize(PROBE, add_special=False, parse_special=False)
    whole = model.tokenize(PROBE, add_special=True, parse_special=False)
    starts = range(len(whole) - len(plain) + 1)
    start = next((i for i in starts if whole[i : i + len(plain)] == plain), 0)
    return whole[:start], whole[start + len(plain) :]
