"""Long documents in windows: which tokens each window has, and that the best one counts."""

from __future__ import annotations

import numpy as np
import pytest

from models.encoders.rerank_codec import RerankCodec, identity
from models.encoders.tokenization import TextTokenizer, TokenSequence
from models.errors import InvalidInputError
from models.types.texts import RerankRequest
from tests.tiny_models import VOCABULARY, tokenizer

MAX_TOKENS = 10
"""Three are special; a query of two letters leaves five."""


@pytest.fixture(scope="module")
def codec() -> RerankCodec:
    backend = tokenizer(typed=True, limit=MAX_TOKENS).backend_tokenizer
    return RerankCodec(TextTokenizer(backend, has_types=True), MAX_TOKENS, identity)


def spaced(letters: str) -> str:
    return " ".join(letters)


def windows_of(codec: RerankCodec, request: RerankRequest) -> list[tuple[int, str]]:
    """(document, its letters in the window) of each pair."""
    (pairs,) = codec.encode([request])
    assert isinstance(pairs, list)
    assert all(len(pair) <= MAX_TOKENS for pair in pairs)
    return [(pair.item, _document(pair)) for pair in pairs]


def _document(pair: TokenSequence) -> str:
    types = pair.type_ids or ()
    tokens = [VOCABULARY[i] for i, kind in zip(pair.ids, types, strict=True) if kind == 1]
    return "".join(tokens[:-1])


def test_windows_cover_the_document_and_overlap(codec: RerankCodec) -> None:
    documents = (spaced("abcdefghijk"), "x y", spaced("abcdef"))
    request = RerankRequest("q q", documents, windows=9, overlap=2)
    assert windows_of(codec, request) == [
        (0, "abcde"), (0, "defgh"), (0, "ghijk"), (1, "xy"), (2, "abcde"), (2, "def"),
    ]  # fmt: skip


def test_windows_are_as_many_as_asked_for(codec: RerankCodec) -> None:
    request = RerankRequest("q q", (spaced("abcdefghijk"),), windows=2)
    assert windows_of(codec, request) == [(0, "abcde"), (0, "fghij")]
    assert windows_of(codec, RerankRequest("q q", request.documents)) == [(0, "abcde")]


def test_a_document_cut_by_the_client_is_windowed_no_further(codec: RerankCodec) -> None:
    document = (spaced("abcdefghijk"),)
    cut = RerankRequest("q q", document, windows=9, max_tokens_per_document=7)
    assert windows_of(codec, cut) == [(0, "abcde"), (0, "fg")]
    short = RerankRequest("q q", document, windows=9, max_tokens_per_document=3)
    assert windows_of(codec, short) == [(0, "abc")]


def test_a_long_query_leaves_half_of_the_room(codec: RerankCodec) -> None:
    request = RerankRequest(spaced("qqqqqqqqqqqq"), (spaced("abcdef"),), windows=9)
    assert windows_of(codec, request) == [(0, "abc"), (0, "def")]


def test_the_best_window_is_the_documents_score(codec: RerankCodec) -> None:
    request = RerankRequest("q q", (spaced("abcdefghijk"), "x"), windows=9)
    (pairs,) = codec.encode([request])
    assert isinstance(pairs, list)
    rows = [np.array([value], dtype=np.float32) for value in (-3.0, 1.5, -2.0, 0.5)]
    result = codec.decode(request, pairs, rows)
    assert result.logits == result.scores == (1.5, 0.5)
    assert result.usage.prompt_tokens == sum(map(len, pairs))


@pytest.mark.parametrize("options", [{"windows": 0}, {"overlap": -1}])
def test_impossible_windows_are_refused(codec: RerankCodec, options: dict[str, int]) -> None:
    (entry,) = codec.encode([RerankRequest("q", ("d",), **options)])  # type: ignore[arg-type]
    assert isinstance(entry, InvalidInputError)
