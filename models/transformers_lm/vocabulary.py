"""A Hugging Face tokenizer as the decode loop's vocabulary: exact bytes for every token."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

from models.errors import InvalidInputError, ModelLoadError

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_WORD_BOUNDARY = "\u2581"
_INFILL = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<|fim\u2581begin|>", "<|fim\u2581hole|>", "<|fim\u2581end|>"),
    ("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"),
    ("[PREFIX]", "[SUFFIX]", "[MIDDLE]"),
)
"""How model families name what stands before the prefix, the suffix and the middle of a gap."""


class TokenizerVocabulary:
    """The vocabulary of a model with `size` rows of logits.

    `end_tokens` come from the model's configuration; the tokenizer's own end token is one too, and
    whatever has no row is none. Rows that no token stands for write nothing. Raises ModelLoadError
    for tokenizers that do not say what bytes a token stands for.
    """

    def __init__(self, tokenizer: Any, *, size: int, end_tokens: Iterable[int]) -> None:
        backend = _plain_copy(tokenizer.backend_tokenizer)
        added = backend.get_added_tokens_decoder()
        self.size = size
        self.pieces = _pieces(backend, added, size)
        self.control_tokens: Mapping[str, int] = {
            token.content: index for index, token in sorted(added.items()) if token.special
        }
        self.longest_piece = max(map(len, (*self.pieces, *self.control_tokens)))
        stated = {*end_tokens, tokenizer.eos_token_id} - {None}
        self.end_tokens = frozenset(token for token in stated if 0 <= token < size)
        self.bos = _bos(backend, tokenizer.bos_token_id)
        self.bos_text = str(tokenizer.bos_token or "")
        self.eos_text = str(tokenizer.eos_token or "")
        self.infill_tokens = _infill_tokens(backend, size)
        self._unspeakable = {*self.control_tokens.values()} - {tokenizer.unk_token_id}
        self._special: Tokenizer | None = backend
        self._literal: Tokenizer | None = _plain_copy(backend)
        self._literal.encode_special_tokens = True

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids; `parse_special` turns the texts of control tokens into those tokens.

        Raises ValueError once closed, InvalidInputError for tokens without weights.
        """
        special, literal = self._special, self._literal
        if special is None or literal is None:
            raise ValueError("the vocabulary is closed")
        text = text.encode("utf-8", "replace").decode()  # tokenizers refuse half a surrogate pair
        if parse_special:
            tokens: list[int] = special.encode(text, add_special_tokens=False).ids
        else:
            tokens = self._literal_tokens(literal, text)
        if tokens and max(tokens) >= self.size:
            raise InvalidInputError("the text has a token that this model has no weights for")
        if add_special and self.bos is not None:
            tokens.insert(0, self.bos)
        return tokens

    def _literal_tokens(self, tokenizer: Tokenizer, text: str) -> list[int]:
        """Some tokenizers (Unigram) know control tokens as words too: such a word is cut apart."""
        tokens: list[int] = []
        parts = [text]
        while parts:
            part = parts.pop()
            encoding = tokenizer.encode(part, add_special_tokens=False)
            spelled = [
                start + 1
                for index, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
                if index in self._unspeakable and end - start > 1
            ]
            if spelled:
                bounds = [0, *spelled, len(part)]
                parts += [part[start:end] for start, end in pairwise(bounds)][::-1]
            else:
                tokens += [token for token in encoding.ids if token not in self._unspeakable]
        return tokens

    def close(self) -> None:
        self._special = self._literal = None


def _plain_copy(backend: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _bos(backend: Tokenizer, bos: int | None) -> int | None:
    """The BOS token, if the tokenizer puts it before a text."""
    first = backend.encode("", add_special_tokens=True).ids[:1]
    return bos if first == [bos] else None


def _infill_tokens(backend: Tokenizer, size: int) -> tuple[int, int, int] | None:
    for names in _INFILL:
        prefix, suffix, middle = map(backend.token_to_id, names)
        if prefix is None or suffix is None or middle is None:
            continue
        if max(prefix, suffix, middle) < size:
            return prefix, suffix, middle
    return None


# --- the bytes of a token -----------------------------------------------------------------------


def _pieces(backend: Tokenizer, added: Mapping[int, Any], size: int) -> tuple[bytes, ...]:
    to_bytes = _piece_rule(backend)
    pieces = [b""] * size
    for text, index in backend.get_vocab(with_added_tokens=False).items():
        if index < size:
            pieces[index] = to_bytes(text)
    for index, token in added.items():
        if index < size:
            pieces[index] = b"" if token.special else token.content.encode()
    return tuple(pieces)


def _piece_rule(backend: Tokenizer) -> Callable[[str], bytes]:
    kinds = set(_decoder_kinds(_state(backend.decoder)))
    if "ByteLevel" in kinds:
        return _byte_level_piece
    if kinds & {"ByteFallback", "Metaspace"}:
        return _sentencepiece_piece
    raise ModelLoadError("the tokenizer is neither byte-level nor of the sentencepiece kind")


def _state(decoder: Any) -> Any:
    return {} if decoder is None else json.loads(decoder.__getstate__())


def _decoder_kinds(state: Any) -> Iterator[str]:
    yield state.get("type", "")
    for inner in state.get("decoders", ()):
        yield from _decoder_kinds(inner)


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: what is printable in Latin-1 stands for itself, the
    others are counted from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _byte_characters()


def _byte_level_piece(text: str) -> bytes:
    try:
        return bytes(_BYTES[character] for character in text)
    except KeyError:
        return text.encode()


def _sentencepiece_piece(text: str) -> bytes:
    byte = _BYTE_PIECE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace(_WORD_BOUNDARY, " ").encode()
