"""Tokens to entities: schemes, strategies, windows. Values by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from models.encoders.entity_grouping import EntityGrouping
from models.encoders.entity_tags import Tag, read_tags
from models.encoders.word_tokenizer import TokenizedText, WordTokenizer
from models.toy.encoder import byte_tokenizer
from models.types.classification import Entity

IOB = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
BILOU = ("O", "B-PER", "I-PER", "L-PER", "U-PER", "U-LOC")
BIOES = ("O", "B-PER", "I-PER", "E-PER", "S-PER", "S-LOC")


def tagged(labels: tuple[str, ...], *said: str, strategy: Any = "simple") -> list[tuple[str, str]]:
    """One letter per token; each token says one label with certainty."""
    letters = "abcdefghij"[: len(said)]
    text = TokenizedText(
        letters, range(len(said)), letters, [(i, i + 1) for i in range(len(said))], True, None
    )
    scores = np.eye(len(labels))[[labels.index(label) for label in said]]
    found = EntityGrouping(labels).entities(text, scores, strategy)
    return [(letters[e.start : e.end], e.label) for e in found]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (("B-PER", "I-PER", "O", "B-LOC"), [("ab", "PER"), ("d", "LOC")]),
        (("B-PER", "B-PER"), [("a", "PER"), ("b", "PER")]),
        (("I-PER", "I-PER", "O", "I-PER"), [("ab", "PER"), ("d", "PER")]),  # IOB1
        (("I-PER", "B-PER", "I-PER"), [("a", "PER"), ("bc", "PER")]),
        (("B-PER", "I-LOC", "I-LOC"), [("a", "PER"), ("bc", "LOC")]),
        (("O", "O"), []),
    ],
)
def test_iob(said: tuple[str, ...], found: list[tuple[str, str]]) -> None:
    assert tagged(IOB, *said) == found


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (("B-PER", "I-PER", "L-PER"), [("abc", "PER")]),
        (("U-PER", "U-PER"), [("a", "PER"), ("b", "PER")]),
        (("B-PER", "L-PER", "L-PER"), [("ab", "PER"), ("c", "PER")]),
        (("B-PER", "L-PER", "I-PER"), [("ab", "PER"), ("c", "PER")]),
        (("I-PER", "I-PER"), [("ab", "PER")]),
        (("B-PER", "U-LOC", "O"), [("a", "PER"), ("b", "LOC")]),
    ],
)
@pytest.mark.parametrize("labels", [BILOU, BIOES])
def test_bilou_and_bioes(
    labels: tuple[str, ...], said: tuple[str, ...], found: list[tuple[str, str]]
) -> None:
    other = dict(zip(BILOU, labels, strict=True))
    assert tagged(labels, *(other[label] for label in said)) == found


def test_plain_labels_continue_their_like() -> None:
    assert tagged(("O", "PER", "LOC"), "PER", "PER", "LOC", "O", "PER") == [
        ("ab", "PER"),
        ("c", "LOC"),
        ("e", "PER"),
    ]
    assert read_tags(("O", "E-MAIL", "U-BOAT", "CITY")) == (
        Tag("O"),
        Tag("E-MAIL"),
        Tag("U-BOAT"),
        Tag("CITY"),
    )


def test_names_of_entities() -> None:
    assert EntityGrouping(IOB).names == EntityGrouping(("O", "PER", "LOC")).names == ("PER", "LOC")
    assert EntityGrouping(BILOU).names == ("PER", "LOC")


def word(*rows: list[float], strategy: Any) -> tuple[Entity, ...]:
    """One word of several tokens, with these scores of O, B-PER, I-PER."""
    pieces = ["ab", *["##cd"] * (len(rows) - 1)]
    spans = [(2 * i, 2 * i + 2) for i in range(len(rows))]
    text = TokenizedText("ab" + "cd" * 9, range(len(rows)), pieces, spans, True, None)
    return EntityGrouping(("O", "B-PER", "I-PER")).entities(text, np.array(rows), strategy)


def test_the_strategies_of_words() -> None:
    rows = [0.3, 0.6, 0.1], [0.2, 0.0, 0.8], [0.9, 0.05, 0.05]
    assert word(*rows, strategy="first") == (Entity("PER", 0.6, 0, 6),)
    assert word(*rows, strategy="max") == ()
    assert word(*rows[:2], strategy="max") == (Entity("PER", 0.8, 0, 4),)
    (average,) = word(*rows[:2], strategy="average")
    assert (average.label, average.score) == ("PER", pytest.approx(0.45))
    simple = word(*rows, strategy="simple")
    assert simple == (Entity("PER", pytest.approx(0.7), 0, 4),)
    assert [e.label for e in word(*rows, strategy="none")] == ["B-PER", "I-PER"]


def test_unknown_tokens_begin_words() -> None:
    text = TokenizedText("ab?", [5, 6, 0], ["a", "##b", "[UNK]"], [(0, 1), (1, 2), (2, 3)], True, 0)
    assert text.continues() == [False, True, False]


def test_words_of_tokenizers_without_marks_end_at_spaces() -> None:
    spans = [(0, 2), (2, 3), (3, 5), (6, 8)]
    text = TokenizedText("don't do", range(4), ["do", "n", "'t", "do"], spans, False, None)
    assert text.continues() == [False, True, True, False]


@pytest.mark.parametrize("limit", [8, 9, 13, 64, 1000])
@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 11, 12, 61, 62, 63, 300])
def test_windows_cover_every_token_and_overlap(length: int, limit: int) -> None:
    tokenizer = WordTokenizer(byte_tokenizer())
    (text,) = tokenizer.tokenized(["x" * length])
    windows = tokenizer.windows(text, 0, limit)
    assert all(len(window) <= limit for window in windows)
    assert {i for w in windows for i in range(w.first, w.first + w.count)} == set(range(length))
    assert len(windows) == (1 if 0 < length <= limit - 2 else len(windows))
    for one, other in pairwise(windows):
        overlap = one.first + one.count - other.first
        assert overlap == int((limit - 2) * 0.25)
        assert other.first + other.count > one.first + one.count
