"""What an embedding request may ask for beside its texts, on tiny models in the real layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from models.encoders.embedding_codec import EmbeddingCodec
from models.encoders.embedding_prompts import PromptBook
from models.encoders.encoder import TorchEncoder
from models.encoders.tokenization import TextTokenizer, TokenSequence
from models.errors import InputTooLongError, InvalidInputError, ModelError
from models.types.texts import EmbeddingRequest, Purpose
from tests.tiny_models import VOCABULARY, tokenizer, write_encoder, write_json

WAIT = 60.0
CLS, SEP = 2, 3
IDS = {token: i for i, token in enumerate(VOCABULARY)}


@pytest.fixture(scope="module")
def text_tokenizer() -> TextTokenizer:
    return TextTokenizer(tokenizer(typed=True, limit=9).backend_tokenizer, has_types=True)


def ids_of(codec: EmbeddingCodec, text: Any, **options: Any) -> list[int]:
    ((entry),) = codec.encode([EmbeddingRequest((text,), **options)])
    if isinstance(entry, ModelError):
        raise entry
    return list(entry[0].ids)


def letters(text: str) -> list[int]:
    return [IDS[letter] for letter in text]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [CLS, *letters("abc"), SEP]),
        ({"truncate": True}, [CLS, *letters("abc"), SEP]),
        ({"truncation_side": "left"}, [CLS, *letters("cde"), SEP]),
        ({"truncation_side": "right"}, [CLS, *letters("abc"), SEP]),
        ({"max_tokens": 4}, [CLS, *letters("ab"), SEP]),
        ({"max_tokens": 99}, [CLS, *letters("abc"), SEP]),
        ({"add_special_tokens": False}, letters("abcde")),
        ({"add_special_tokens": False, "max_tokens": 2}, letters("ab")),
    ],
    ids=str,
)
def test_texts_are_cut_as_asked(
    text_tokenizer: TextTokenizer, options: dict[str, Any], expected: list[int]
) -> None:
    codec = EmbeddingCodec(text_tokenizer, 8, 5)
    assert ids_of(codec, "a b c d e", **{"truncate": True, **options}) == expected


def test_token_ids_are_cut_as_asked(text_tokenizer: TextTokenizer) -> None:
    codec = EmbeddingCodec(text_tokenizer, 8, 5)
    ids = (5, 6, 7, 8, 9, 10)
    assert ids_of(codec, ids, truncate=True) == [5, 6, 7, 8, 9]
    assert ids_of(codec, ids, truncate=True, truncation_side="left") == [6, 7, 8, 9, 10]
    assert ids_of(codec, ids, truncate=True, max_tokens=2) == [5, 6]


def test_what_is_too_long_is_refused_with_the_limit_that_was_asked_for(
    text_tokenizer: TextTokenizer,
) -> None:
    codec = EmbeddingCodec(text_tokenizer, 8, 9)
    with pytest.raises(InputTooLongError) as caught:
        ids_of(codec, "a b c d", max_tokens=5)
    assert (caught.value.tokens, caught.value.limit) == (6, 5)
    with pytest.raises(InvalidInputError, match="no room"):
        ids_of(codec, "a b c d", max_tokens=2, truncate=True)


def test_normalisation_is_the_models_unless_asked_otherwise(text_tokenizer: TextTokenizer) -> None:
    rows = [np.array([3.0, 4.0, 12.0], dtype=np.float32)]
    sequences = [TokenSequence([CLS, 5, SEP])]

    def vector(normalizes: bool, **options: Any) -> list[float]:
        codec = EmbeddingCodec(text_tokenizer, 3, 9, normalizes=normalizes)
        result = codec.decode(EmbeddingRequest(("a",), **options), sequences, rows)
        return [round(float(value) * 13, 4) for value in result.vectors[0]]

    raw, unit = [39.0, 52.0, 156.0], [3.0, 4.0, 12.0]
    assert vector(True) == vector(False, normalize=True) == unit
    assert vector(False) == vector(True, normalize=False) == raw
    assert vector(True, dimensions=2) == vector(False, dimensions=2) == [7.8, 10.4]
    assert vector(True, dimensions=2, normalize=False) == raw[:2]


@pytest.mark.parametrize(
    ("names", "purpose", "chosen"),
    [
        (("query", "document"), "query", "query"),
        (("query", "document"), "document", "document"),
        (("query", "passage"), "document", "passage"),
        (("search_query", "search_document", "clustering"), "query", "search_query"),
        (("search_query", "search_document", "clustering"), "clustering", "clustering"),
        (("retrieval.query", "retrieval.passage", "separation"), "document", "retrieval.passage"),
        (("retrieval.query", "retrieval.passage", "separation"), "clustering", "separation"),
        (("Retrieval-query", "query", "STS", "Classification"), "similarity", "STS"),
        (("Retrieval-query", "query", "STS", "Classification"), "query", "query"),
        (("STS", "Classification"), "classification", "Classification"),
    ],
)
def test_a_purpose_chooses_the_models_own_prompt(
    names: Sequence[str], purpose: Purpose, chosen: str
) -> None:
    book = PromptBook({name: f"<{name}>" for name in names})
    assert book.prefix(EmbeddingRequest(("a",), purpose=purpose)) == f"<{chosen}>"


def test_without_a_prompt_for_the_purpose_a_text_gets_the_default_or_none() -> None:
    as_query = EmbeddingRequest(("a",), purpose="query")
    assert PromptBook().prefix(as_query) == ""
    assert PromptBook({"passage": "p: "}).prefix(as_query) == ""
    assert PromptBook({"passage": "p: "}, "passage").prefix(as_query) == "p: "
    assert PromptBook({"query": "q: ", "passage": "p: "}, "passage").prefix(as_query) == "q: "
    named = EmbeddingRequest(("a",), purpose="query", prompt_name="passage")
    assert PromptBook({"query": "q: ", "passage": "p: "}).prefix(named) == "p: "


def test_an_unknown_prompt_is_refused_with_the_names_that_there_are() -> None:
    request = EmbeddingRequest(("a",), prompt_name="nope")
    with pytest.raises(InvalidInputError, match="it has 'passage', 'query'") as caught:
        PromptBook({"query": "", "passage": ""}).prefix(request)
    assert caught.value.param == "prompt_name"
    with pytest.raises(InvalidInputError, match="it has none"):
        PromptBook().prefix(request)


def test_the_folders_prompts_go_before_texts(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    prompts = {"search_query": "find: ", "search_document": ""}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts})
    encoder = TorchEncoder(folder, n_threads=1, dtype="float32")
    by_hand, as_query, as_document, plain = encoder.submit(
        [
            EmbeddingRequest(("find: a b",)),
            EmbeddingRequest(("a b",), purpose="query"),
            EmbeddingRequest(("a b",), purpose="document"),
            EmbeddingRequest(("a b",)),
        ]
    ).result(WAIT)
    encoder.close()
    assert encoder.info.prompts == ("search_document", "search_query")
    np.testing.assert_allclose(as_query.vectors, by_hand.vectors, atol=1e-5)
    np.testing.assert_allclose(as_document.vectors, plain.vectors, atol=1e-5)
    assert as_query.usage.prompt_tokens == plain.usage.prompt_tokens + 5
    assert np.abs(as_query.vectors - plain.vectors).max() > 0.01


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_late_chunking_pools_parts_of_one_context(family: str, tmp_path: Path) -> None:
    """Packed and padded, in one batch with ordinary texts; against the hidden states by hand."""
    folder = write_encoder(tmp_path, family)
    encoder = TorchEncoder(folder, n_threads=1, dtype="float32")
    parts = ("a b c", "d e", "f")
    late, plain = encoder.submit(
        [EmbeddingRequest(parts, late_chunking=True), EmbeddingRequest(("x y", "z"))]
    ).result(WAIT)
    assert encoder.info.pooling == "mean"
    encoder.close()
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        ids = torch.tensor([[CLS, *letters("abcdef"), SEP]])
        hidden = model(input_ids=ids).last_hidden_state[0].numpy()
    pooled = np.stack([hidden[a:b].mean(axis=0) for a, b in ((1, 4), (4, 6), (6, 7))])
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(late.vectors, expected, atol=1e-4)
    assert late.usage.prompt_tokens == 8
    assert plain.vectors.shape == (2, 32)
    assert plain.input_tokens == (4, 3)


@pytest.mark.parametrize(
    ("codec_options", "request_options", "param"),
    [
        ({"late_chunking": False}, {"late_chunking": True}, "late_chunking"),
        ({"late_chunking": True}, {"late_chunking": True, "inputs": ((5, 6),)}, "late_chunking"),
        ({}, {"kinds": ("dense", "sparse")}, "model"),
        ({}, {"kinds": ("tokens",)}, "model"),
    ],
    ids=str,
)
def test_what_a_model_cannot_do_is_refused(
    text_tokenizer: TextTokenizer,
    codec_options: dict[str, Any],
    request_options: dict[str, Any],
    param: str,
) -> None:
    codec = EmbeddingCodec(text_tokenizer, 8, 9, **codec_options)
    (entry,) = codec.encode([EmbeddingRequest(**{"inputs": ("a",), **request_options})])
    assert isinstance(entry, InvalidInputError)
    assert entry.param == param


def test_parts_that_do_not_fit_one_context_are_refused(text_tokenizer: TextTokenizer) -> None:
    codec = EmbeddingCodec(text_tokenizer, 8, 6, late_chunking=True)
    fits, too_long = (
        EmbeddingRequest(parts, late_chunking=True, truncate=True)
        for parts in (("a b", "c d"), ("a b", "c d", "e"))
    )
    sequences, refusal = codec.encode([fits, too_long])
    assert [s.spans for s in sequences] == [((1, 3), (3, 5))]  # type: ignore[union-attr]
    assert isinstance(refusal, InputTooLongError)
    assert (refusal.tokens, refusal.limit) == (7, 6)


def test_tokens_and_their_characters(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "q: "}})
    encoder = TorchEncoder(folder, n_threads=1, dtype="float32")
    (tokens,) = encoder.tokenize(["é ab"])
    assert [(t.text, t.special, t.start, t.stop) for t in tokens] == [
        ("[CLS]", True, None, None),
        ("é", False, 0, 1),
        ("a", False, 2, 3),
        ("b", False, 3, 4),
        ("[SEP]", True, None, None),
    ]
    (bare,) = encoder.tokenize(["ab"], specials=False, prompt_name="query")
    assert [t.text for t in bare] == ["q", ":", "a", "b"]
    ids = [t.id for t in encoder.tokenize(["a b"])[0]]
    assert encoder.detokenize([ids, ids[1:2]]) == ["a b", "a"]
    assert encoder.detokenize([ids], skip_specials=False) == ["[CLS] a b [SEP]"]
    with pytest.raises(InvalidInputError, match="vocabulary"):
        encoder.detokenize([[10_000]])
    with pytest.raises(InvalidInputError, match="it has 'query'"):
        encoder.tokenize(["a"], prompt_name="nope")
    encoder.close()
