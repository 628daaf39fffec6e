"""A model's NaN never reaches a client."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer

from models.encoders.embedding_codec import EmbeddingCodec
from models.encoders.rerank_codec import RerankCodec
from models.encoders.tokenization import TextTokenizer, TokenSequence
from models.errors import ModelError
from models.types.texts import EmbeddingRequest, RerankRequest
from tests.tiny_models import tokenizer

SEQUENCE = TokenSequence([2, 3])
BAD = [np.array([value], dtype=np.float32) for value in (np.nan, np.inf, -np.inf)]
FINE = np.array([0.5], dtype=np.float32)


@pytest.fixture(scope="module")
def text_tokenizer() -> TextTokenizer:
    backend: Tokenizer = tokenizer(typed=True, limit=9).backend_tokenizer
    return TextTokenizer(backend, has_types=True)


@pytest.mark.parametrize("bad", BAD)
def test_vectors(text_tokenizer: TextTokenizer, bad: np.ndarray) -> None:
    codec = EmbeddingCodec(text_tokenizer, 1, 9)
    request = EmbeddingRequest(("a", "b"))
    assert codec.decode(request, [SEQUENCE] * 2, [FINE, FINE]).vectors.shape == (2, 1)
    with pytest.raises(ModelError, match="finite"):
        codec.decode(request, [SEQUENCE] * 2, [FINE, bad])


@pytest.mark.parametrize("bad", BAD)
def test_scores(text_tokenizer: TextTokenizer, bad: np.ndarray) -> None:
    codec = RerankCodec(text_tokenizer, 9)
    request = RerankRequest("a", ("a", "b"))
    assert codec.decode(request, [SEQUENCE] * 2, [FINE, FINE]).logits == (0.5, 0.5)
    with pytest.raises(ModelError, match="finite"):
        codec.decode(request, [SEQUENCE] * 2, [FINE, bad])
