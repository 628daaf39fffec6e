"""A small vocabulary for grammars, and a model that chooses at random among what is allowed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from models.structured.constraint import TokenConstraint
from models.types.common import FloatArray

_WORDS = (
    b'{"', b'":', b'": ', b'", "', b'"}', b"[]", b"}]", b"true", b"name", b"\n\n", b"  ", b"12",
    b"</think>", b"ink>{", "é".encode(), "日本".encode(), "😀".encode()[:2], "😀".encode()[2:],
)  # fmt: skip
_CONTROLS = 5
FIRST_CONTROL = 256 + len(_WORDS)
CONTROL = FIRST_CONTROL
"""A control token that does not end a completion."""

END, OTHER_END = FIRST_CONTROL + 1, FIRST_CONTROL + 3
_CLOSING = (b'"', b"}", b"]", b",")


class SmallVocabulary:
    """A token per byte, some words, parts of characters, and control tokens, two of which end."""

    pieces: Sequence[bytes] = (*(bytes([b]) for b in range(256)), *_WORDS, *[b""] * _CONTROLS)
    size = len(pieces)
    longest_piece = max(map(len, pieces))
    end_tokens = frozenset({END, OTHER_END})
    bos: int | None = None

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        del add_special, parse_special
        return list(text.encode())


VOCABULARY = SmallVocabulary()


def row(length: int = VOCABULARY.size) -> FloatArray:
    return np.zeros(length, np.float32)


def allowed(constraint: TokenConstraint) -> set[int]:
    """The tokens that may come next."""
    logits = row()
    constraint.mask(logits)
    return set(np.flatnonzero(logits == 0).tolist())


def allowed_text(constraint: TokenConstraint) -> set[bytes]:
    return {VOCABULARY.pieces[t] for t in allowed(constraint)}


def write(constraint: TokenConstraint, text: str) -> TokenConstraint:
    """Let a constraint accept a text, one byte each; ModelError where it does not fit."""
    for byte in text.encode():
        constraint.accept(byte)
    return constraint


def write_at_random(constraint: TokenConstraint, seed: int, max_steps: int = 3000) -> str:
    """A complete output, of tokens that were allowed; AssertionError when it does not end."""
    chance, written = random.Random(seed), bytearray()
    for step in range(max_steps):
        choices = sorted(allowed(constraint))
        token = _choose(choices, chance, hurry=step > 100)
        if token in VOCABULARY.end_tokens:
            return written.decode()
        constraint.accept(token)
        written += VOCABULARY.pieces[token]
        if constraint.finished:
            return written.decode()
    raise AssertionError(f"no end after {bytes(written[:200])!r}")


def _choose(choices: Sequence[int], chance: random.Random, *, hurry: bool) -> int:
    ends = [t for t in choices if t in VOCABULARY.end_tokens]
    closing = [t for t in choices if VOCABULARY.pieces[t].startswith(_CLOSING)]
    if hurry and ends:
        return ends[0]
    preferred = [*closing, *ends]
    if preferred and chance.random() < (0.9 if hurry else 0.3):
        return chance.choice(preferred)
    return chance.choice(choices)
