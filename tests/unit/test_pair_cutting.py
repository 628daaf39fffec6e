"""Cutting pairs and texts, against the tokenizers library's own truncation."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer, processors

from models.encoders.classification_codec import ClassificationCodec
from models.encoders.label_set import LabelSet
from models.encoders.rerank_codec import RerankCodec, activation_named, shares, sigmoid
from models.encoders.tokenization import TextTokenizer
from models.errors import InputTooLongError, ModelLoadError
from models.types.classification import ClassificationRequest
from models.types.texts import RerankRequest, TruncationSide
from tests.tiny_classifiers import byte_tokenizer
from tests.tiny_models import tokenizer

SPECIALS = {"single": 2, "pair": 3}


def _backend() -> Tokenizer:
    backend: Tokenizer = tokenizer(typed=True, limit=512).backend_tokenizer
    return backend


def _processing(processor: Any) -> Tokenizer:
    """The tests' tokenizer with another post-processor, or without one."""
    backend = _backend()
    if processor is not None:
        backend.post_processor = processor
        return backend
    fields = json.loads(backend.to_str())
    return Tokenizer.from_str(json.dumps({**fields, "post_processor": None}))


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


SPECIAL_IDS = [("[CLS]", 2), ("[SEP]", 3)]
TEMPLATE = processors.TemplateProcessing(single="$A [SEP]", special_tokens=SPECIAL_IDS)
PROCESSORS = [
    processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
    TEMPLATE,
    processors.TemplateProcessing(
        single="$A [SEP] [CLS]:2",
        pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2",
        special_tokens=SPECIAL_IDS,
    ),
    processors.TemplateProcessing(
        single="$A:3", pair="[CLS]:4 $B:2 [SEP] $A:1", special_tokens=SPECIAL_IDS
    ),
    processors.TemplateProcessing(single="$A", pair="$A $B:1 [SEP]:1", special_tokens=SPECIAL_IDS),
    processors.Sequence([processors.ByteLevel(), TEMPLATE]),
    processors.Sequence([TEMPLATE, processors.ByteLevel()]),
    processors.ByteLevel(),
    None,
]


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("specials", [True, False])
@pytest.mark.parametrize("text", ["a b c", ""])
def test_special_tokens_are_added_as_in_one_step(processor: Any, specials: bool, text: str) -> None:
    backend = _processing(processor)
    expected = backend.encode(text, add_special_tokens=specials)
    ours = TextTokenizer(backend, has_types=True)
    (content,) = ours.contents([text])
    sequence = ours.single(content, specials=specials)
    assert (sequence.ids, sequence.type_ids) == (expected.ids, expected.type_ids)
    assert len(content) + specials * ours.specials(pair=False) == len(sequence)


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("pair", [("a b c", "d"), ("a", "a b"), ("", "d e"), ("a", ""), ("", "")])
@pytest.mark.parametrize("typed", [True, False])
def test_pairs_are_put_together_as_in_one_step(
    processor: Any, pair: tuple[str, str], typed: bool
) -> None:
    backend = _processing(processor)
    expected = backend.encode(*pair)
    ours = TextTokenizer(backend, has_types=typed)
    contents = ours.contents(pair)
    sequence = ours.pair(*contents)
    assert sequence.ids == expected.ids
    assert sequence.type_ids == (expected.type_ids if typed else None)
    assert sum(map(len, contents)) + ours.specials(pair=True) == len(sequence)


@pytest.mark.parametrize("pair", [("the cat", "in an inner thing"), ("x", "")])
def test_pairs_of_a_byte_level_tokenizer(pair: tuple[str, str]) -> None:
    backend = byte_tokenizer().backend_tokenizer
    ours = TextTokenizer(backend, has_types=False)
    assert ours.pair(*ours.contents(pair)).ids == backend.encode(*pair).ids


def test_a_tokenizer_that_repeats_a_text_is_refused() -> None:
    twice = processors.TemplateProcessing(single="$A", pair="$A $B $A", special_tokens=[])
    with pytest.raises(ModelLoadError):
        TextTokenizer(_processing(twice), has_types=True)


class Watched:
    """A library tokenizer that puts nothing together that was cut, and nothing long."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def post_process(self, *arguments: Any) -> Any:
        encodings = [entry for entry in arguments if isinstance(entry, Encoding)]
        assert not any(entry.overflowing for entry in encodings)
        assert sum(map(len, encodings)) < 100
        return self._backend.post_process(*arguments)


@pytest.mark.parametrize("windows", [1, 3])
def test_what_is_cut_off_a_long_pair_costs_nothing_more(windows: int) -> None:
    watched: Any = Watched(_backend())
    codec = RerankCodec(TextTokenizer(watched, has_types=True), 512)
    long = _letters(20_000)
    (pairs,) = codec.encode([RerankRequest(long, (long,), windows=windows)])
    assert isinstance(pairs, list)
    assert [len(pair) for pair in pairs] == [512] * windows


def test_what_is_cut_off_a_long_pair_of_a_classifier_costs_nothing_more() -> None:
    watched: Any = Watched(_backend())
    tokens = TextTokenizer(watched, has_types=True)
    codec = ClassificationCodec(tokens, 512, LabelSet(("no", "yes"), "softmax"))
    long = _letters(20_000)
    (pairs,) = codec.encode([ClassificationRequest(((long, long),))])
    assert isinstance(pairs, list)
    assert [len(pair) for pair in pairs] == [512]


@pytest.mark.parametrize("max_tokens", [10, 11])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_long_query_is_cut_for_every_document_by_the_same_rule(
    max_tokens: int, side: Any
) -> None:
    query, documents = _letters(40), tuple(_letters(count) for count in (0, 2, 3, 4, 20, 60))
    backend = _backend()
    backend.enable_truncation(max_tokens, strategy="longest_first", direction=side)
    codec = RerankCodec(TextTokenizer(_backend(), has_types=True), max_tokens)
    (pairs,) = codec.encode([RerankRequest(query, documents, truncation_side=side)])
    assert isinstance(pairs, list)
    assert [pair.ids for pair in pairs] == [backend.encode(query, d).ids for d in documents]


class CutSizes(TextTokenizer):
    """Notes how long what it cuts is."""

    def __init__(self) -> None:
        super().__init__(_backend(), has_types=True)
        self.sizes: list[int] = []

    def cut(self, content: list[int], limit: int, side: TruncationSide | None = None) -> None:
        self.sizes.append(len(content))
        super().cut(content, limit, side)


@pytest.mark.parametrize("windows", [1, 2])
def test_a_long_query_is_cut_to_the_room_once(windows: int) -> None:
    tokens = CutSizes()
    documents = ("a", "b c", _letters(300), _letters(600))
    RerankCodec(tokens, 512).encode([RerankRequest(_letters(5000), documents, windows=windows)])
    assert [size for size in tokens.sizes if size > 600] == [5000]


def test_a_long_query_is_refused_by_its_own_length() -> None:
    codec = RerankCodec(TextTokenizer(_backend(), has_types=True), 512)
    (entry,) = codec.encode([RerankRequest(_letters(5000), ("a b",), truncate=False)])
    assert isinstance(entry, InputTooLongError)
    assert entry.tokens == 5005


def test_a_long_text_is_cut_once_for_all_labels() -> None:
    tokens = CutSizes()
    names = LabelSet(("contradiction", "neutral", "entailment"))
    codec = ClassificationCodec(tokens, 512, names)
    job = ClassificationRequest((_letters(5000),), labels=("a", "b", "c d"), hypothesis="x {}")
    (pairs,) = codec.encode([job])
    assert isinstance(pairs, list)
    assert [len(pair) for pair in pairs] == [512] * 3
    assert [size for size in tokens.sizes if size > 512] == [5000]


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
