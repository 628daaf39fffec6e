"""Vectors are remembered per model, options and text; the result is as if all were computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.encoders.embedding_cache import EmbeddingCache
from models.types.common import Usage
from models.types.texts import EmbeddingRequest, EmbeddingResult


def result_of(*tokens: int) -> EmbeddingResult:
    """An input's vector holds its number of tokens."""
    vectors = np.array([[n, -n] for n in tokens], dtype=np.float32)
    return EmbeddingResult(vectors, Usage(sum(tokens)), tokens)


def ask(cache: EmbeddingCache, *texts: Any, model: str = "m", **options: Any) -> tuple[Any, Any]:
    """The inputs that had to be computed (an input's tokens are its length), and the result."""
    lookup = cache.look_up(model, EmbeddingRequest(texts, **options))
    missing = lookup.missing.inputs if lookup.missing else ()
    computed = result_of(*map(len, missing)) if missing else None
    return missing, cache.complete(lookup, computed)


def test_only_what_is_new_is_computed() -> None:
    cache = EmbeddingCache(10)
    assert ask(cache, "a", "bb")[0] == ("a", "bb")
    missing, result = ask(cache, "bb", "ccc", "a", "bb")
    assert missing == ("ccc",)
    assert result.vectors[:, 0].tolist() == [2, 3, 1, 2]
    assert result.input_tokens == (2, 3, 1, 2)
    assert result.usage.prompt_tokens == 8
    assert ask(cache, "a", "ccc")[0] == ()


def test_models_and_options_are_told_apart() -> None:
    cache = EmbeddingCache(10)
    ask(cache, "a")
    assert ask(cache, "a", model="other")[0] == ("a",)
    assert ask(cache, "a", purpose="query")[0] == ("a",)
    assert ask(cache, "a", dimensions=1)[0] == ("a",)
    assert ask(cache, "a")[0] == ()


def test_the_longest_unused_go_first() -> None:
    cache = EmbeddingCache(2)
    ask(cache, "a")
    ask(cache, "b")
    ask(cache, "a")
    ask(cache, "c")
    assert len(cache) == 2
    assert ask(cache, "a")[0] == ()
    assert ask(cache, "b")[0] == ("b",)


@pytest.mark.parametrize(
    ("entries", "inputs", "options"),
    [
        (0, ("a",), {}),
        (9, ((1, 2),), {}),
        (9, ("a",), {"late_chunking": True}),
        (9, ("a",), {"kinds": ("dense", "tokens")}),
    ],
    ids=str,
)
def test_what_is_not_kept_passes_through(entries: int, inputs: Any, options: Any) -> None:
    cache = EmbeddingCache(entries)
    for _ in range(2):
        missing, result = ask(cache, *inputs, **options)
        assert missing == inputs
        assert result.usage.prompt_tokens == len(inputs[0])
    assert len(cache) == 0


def test_half_a_surrogate_pair_is_looked_up_like_any_text() -> None:
    assert ask(EmbeddingCache(1), "\ud800")[0] == ("\ud800",)


def test_a_kept_vector_does_not_keep_its_batch() -> None:
    cache = EmbeddingCache(10)
    _, computed = ask(cache, "a", "bb")
    computed.vectors[:] = 0
    assert ask(cache, "bb")[1].vectors.tolist() == [[2, -2]]
