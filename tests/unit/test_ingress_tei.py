"""TEI's routes over HTTP."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.errors import InvalidInputError
from models.types.common import Usage
from models.types.texts import (
    EmbeddingRequest,
    EmbeddingResult,
    EncoderInfo,
    SparseVector,
    TextToken,
)
from tests.fakes import FakeReplicas, make_client

NOTHING = np.zeros((0, 2), dtype=np.float32)


async def embed(model_id: str, requests: list[EmbeddingRequest]) -> list[Any]:
    return [_result(request) for request in requests]


def _result(request: EmbeddingRequest) -> Any:
    n = len(request.inputs)
    if request.kinds == ("tokens",):
        states = np.array([[1, 2], [3, 4]], dtype=np.float32)
        return EmbeddingResult(NOTHING, Usage(n), token_vectors=(states,) * n)
    if request.kinds == ("sparse",):
        if request.inputs == ("dense",):
            return InvalidInputError("This model gives no sparse vectors.", "model")
        weights = SparseVector(np.array([7, 9], np.int32), np.array([0.5, 1.5], np.float32))
        return EmbeddingResult(NOTHING, Usage(n), sparse=(weights,) * n)
    angles = np.arange(n) * np.pi / 3
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return EmbeddingResult(rows, Usage(n))


async def tokenize(model_id: str, texts: Any, specials: bool, prompt_name: Any) -> Any:
    assert prompt_name is None
    start = [TextToken(1, "[CLS]", True, None, None)] if specials else []
    return [[*start, TextToken(9, text, False, 0, len(text))] for text in texts]


async def detokenize(model_id: str, sequences: Any, skip_specials: bool) -> list[str]:
    return [f"{ids} {skip_specials}" for ids in sequences]


async def describe(model_id: str) -> EncoderInfo:
    return EncoderInfo(384, 256, 4096, "mean", "bfloat16", ("query",))


@pytest.fixture
def replicas() -> FakeReplicas:
    methods = (embed, tokenize, detokenize, describe)
    return FakeReplicas({method.__name__: method for method in methods})


def post(replicas: FakeReplicas, path: str, body: dict[str, Any]) -> Any:
    return make_client({"embedding": replicas}).post(path, json=body)


def request_of(replicas: FakeReplicas) -> EmbeddingRequest:
    ((_, (model_id, (request,))),) = replicas.calls
    assert model_id == "embedding-model"
    return request  # type: ignore[no-any-return]


CUT = {"truncate": True, "truncation_side": "right"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"inputs": ["a", "b"]}, {"inputs": ("a", "b")}),
        ({"inputs": [5, 6]}, {"inputs": ((5, 6),)}),
        ({"inputs": [[5, 6], "a"]}, {"inputs": ((5, 6), "a")}),
        ({"normalize": False}, {"normalize": False}),
        ({"truncate": False}, {"truncate": False}),
        ({"truncate": None}, {}),
        ({"truncation_direction": "Left"}, {"truncation_side": "left"}),
        ({"prompt_name": "query", "dimensions": 1}, {"prompt_name": "query", "dimensions": 1}),
    ],
    ids=str,
)
def test_embed(replicas: FakeReplicas, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """The first embedding model answers; token ids are its own; one input too is a list."""
    response = post(replicas, "/embed", {"inputs": "a"} | fields)
    assert response.status_code == 200
    request = request_of(replicas)
    assert request == EmbeddingRequest(**({"inputs": ("a",), "normalize": True} | CUT | expected))
    assert len(response.json()) == len(request.inputs)
    assert response.json()[0] == [1.0, 0.0]


def test_embed_all(replicas: FakeReplicas) -> None:
    assert post(replicas, "/embed_all", {"inputs": ["a", "b"]}).json() == [[[1, 2], [3, 4]]] * 2
    assert request_of(replicas) == EmbeddingRequest(("a", "b"), kinds=("tokens",), **CUT)


def test_embed_sparse(replicas: FakeReplicas) -> None:
    values = [{"index": 7, "value": 0.5}, {"index": 9, "value": 1.5}]
    assert post(replicas, "/embed_sparse", {"inputs": "a"}).json() == [values]
    response = post(replicas, "/embed_sparse", {"inputs": "dense"})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "This model gives no sparse vectors."


def test_similarity(replicas: FakeReplicas) -> None:
    inputs = {"source_sentence": "a", "sentences": ["b", "c", "d"]}
    parameters = {"truncate": False, "prompt_name": "query"}
    body = {"inputs": inputs, "parameters": parameters}
    reply = post(replicas, "/similarity", body).json()
    assert reply == pytest.approx([0.5, -0.5, -1.0])
    assert request_of(replicas) == EmbeddingRequest(
        ("a", "b", "c", "d"), prompt_name="query", normalize=True, truncation_side="right"
    )


def test_tokenize(replicas: FakeReplicas) -> None:
    reply = post(replicas, "/tokenize", {"inputs": ["ab", "c"]}).json()
    special = {"id": 1, "text": "[CLS]", "special": True, "start": None, "stop": None}
    word = {"id": 9, "text": "ab", "special": False, "start": 0, "stop": 2}
    assert reply[0] == [special, word]
    assert len(reply) == 2
    body = {"inputs": "ab", "add_special_tokens": False}
    assert post(replicas, "/tokenize", body).json() == [[word]]


def test_decode(replicas: FakeReplicas) -> None:
    assert post(replicas, "/decode", {"ids": [5, 6]}).json() == ["(5, 6) True"]
    body = {"ids": [[5, 6], [7]], "skip_special_tokens": False}
    assert post(replicas, "/decode", body).json() == ["(5, 6) False", "(7,) False"]


def test_info(replicas: FakeReplicas) -> None:
    reply = make_client({"embedding": replicas}).get("/info").json()
    assert reply == {
        "model_id": "embedding-model",
        "served_model_name": "embedding-model",
        "model_sha": None,
        "model_dtype": "bfloat16",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": 512,
        "max_input_length": 256,
        "max_batch_tokens": 4096,
        "max_batch_requests": None,
        "max_client_batch_size": 2048,
        "auto_truncate": True,
        "tokenization_workers": 2,
        "version": "0.1.0",
        "sha": None,
        "docker_label": None,
    }


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/embed", {}, "inputs"),
        ("/embed", {"inputs": ""}, "inputs"),
        ("/embed", {"inputs": []}, "inputs"),
        ("/embed", {"inputs": [[]]}, "inputs"),
        ("/embed", {"inputs": [-1]}, "inputs"),
        ("/embed", {"inputs": ["a"] * 3000}, "inputs"),
        ("/embed", {"inputs": "a", "truncation_direction": "Up"}, "truncation_direction"),
        ("/embed", {"inputs": "a", "dimensions": 0}, "dimensions"),
        ("/embed_all", {"inputs": ["a", ""]}, "inputs"),
        ("/embed_sparse", {"inputs": 5}, "inputs"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, "inputs"),
        ("/similarity", {"inputs": {"source_sentence": "", "sentences": ["a"]}}, "inputs"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": [""]}}, "inputs"),
        ("/tokenize", {"inputs": []}, "inputs"),
        ("/decode", {"ids": []}, "ids"),
        ("/decode", {"ids": [2**31]}, "ids"),
        ("/decode", {"ids": [[1]] * 3000}, "ids"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_refused(
    replicas: FakeReplicas, path: str, body: dict[str, Any], param: str
) -> None:
    response = post(replicas, path, body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].partition(".")[0] == param
    assert not replicas.calls
