"""Cutting pairs and texts, against the tokenizers library's own truncation."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from models.encoders.rerank_codec import activation_named, shares, sigmoid
from models.encoders.tokenization import TextTokenizer
from tests.tiny_models import tokenizer

SPECIALS = {"single": 2, "pair": 3}


def _backend() -> Tokenizer:
    backend: Tokenizer = tokenizer(typed=True, limit=512).backend_tokenizer
    return backend


def _letters(count: int) -> str:
    return " ".join(random.Random(count).choices("abcdefghij", k=count))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_pairs_are_cut_by_the_longest_first_rule(query: int, document: int, room: int) -> None:
    backend = _backend()
    backend.enable_truncation(room + SPECIALS["pair"], strategy="longest_first")
    expected = backend.encode(_letters(query), _letters(document))
    ours = TextTokenizer(_backend(), has_types=True)
    parts = ours.contents([_letters(query), _letters(document)])
    for part, share in zip(parts, shares(query, document, room), strict=True):
        ours.cut(part, share)
    pair = ours.pair(*parts)
    assert (pair.ids, pair.type_ids) == (expected.ids, expected.type_ids)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("count", [0, 3, 8, 9, 20])
def test_texts_are_cut_on_the_tokenizers_side(count: int, side: Any) -> None:
    backend = _backend()
    backend.enable_truncation(10, direction=side)
    ours = TextTokenizer(_backend(), has_types=True, cut_side=side)
    (content,) = ours.contents([_letters(count)])
    ours.cut(content, 10 - ours.specials(pair=False))
    assert ours.single(content).ids == backend.encode(_letters(count)).ids


TEMPLATE = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])


@pytest.mark.parametrize(
    "processor",
    [
        processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
        processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
        TEMPLATE,
        processors.Sequence([processors.ByteLevel(), TEMPLATE]),
        processors.ByteLevel(),
    ],
)
def test_special_tokens_are_added_as_in_one_step(processor: Any) -> None:
    backend = _backend()
    backend.post_processor = processor
    expected = backend.encode("a b c")
    ours = TextTokenizer(backend, has_types=True)
    (content,) = ours.contents(["a b c"])
    sequence = ours.single(content)
    assert (sequence.ids, sequence.type_ids) == (expected.ids, expected.type_ids)
    assert len(content) + ours.specials(pair=False) == len(sequence)


def test_padding_and_truncation_of_the_file_do_not_count() -> None:
    backend = _backend()
    backend.enable_truncation(4)
    backend.enable_padding(length=16)
    ours = TextTokenizer(backend, has_types=True)
    assert len(ours.contents([_letters(9)])[0]) == 9


@pytest.mark.parametrize("logit", [-1000.0, -3.0, 0.0, 3.0, 1000.0])
def test_sigmoid_does_not_overflow(logit: float) -> None:
    assert 0 <= sigmoid(logit) <= 1
    assert sigmoid(logit) + sigmoid(-logit) == pytest.approx(1)


def test_sigmoid_is_the_activation_where_none_is_named() -> None:
    assert activation_named(None) is sigmoid
    assert activation_named("torch.nn.modules.linear.Identity")(-7.5) == -7.5
