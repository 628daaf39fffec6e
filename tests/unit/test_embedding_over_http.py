"""The HTTP application, the real deployment class and the toy engine: all that is between a client
and the weights, without Ray."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.settings import AppConfig, EmbeddingSettings
from deployments import embedding
from deployments.embedding import Embedding
from deployments.replica import batched
from models.encoders.cl100k import TOKENS
from models.types.texts import EmbeddingRequest
from tests.fakes import FakeReplicas, make_client, spec

MODEL = "embedding-model"


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Embedding]:
    """With a cache, and a vocabulary in which an id below 256 is its byte."""
    monkeypatch.setattr("deployments.replica.ray.get_gpu_ids", list)
    ranks = tmp_path / "ranks"
    pieces = (bytes([i % 256]) for i in range(TOKENS))
    ranks.write_text("".join(f"{base64.b64encode(p).decode()} {i}\n" for i, p in enumerate(pieces)))
    monkeypatch.setattr("deployments.client_tokens.fetch", lambda *_, **__: ranks)
    config = AppConfig(embedding=EmbeddingSettings(cache_entries=100))
    deployment = Embedding([spec(MODEL, "embedding")], config)
    yield deployment
    deployment.shutdown()


@pytest.fixture
def client(replica: Embedding) -> Any:
    names = ("embed", "describe", "tokenize", "detokenize")
    replicas = FakeReplicas({name: getattr(replica, name) for name in names})
    return make_client({"embedding": replicas})


def vectors_of(client: Any, inputs: Any, **fields: Any) -> tuple[Any, int]:
    body = {"model": MODEL, "input": inputs, **fields}
    reply = client.post("/v1/embeddings", json=body)
    assert reply.status_code == 200, reply.text
    rows = [item["embedding"] for item in reply.json()["data"]]
    return np.array(rows), reply.json()["usage"]["total_tokens"]


def test_what_is_remembered_is_what_was_computed(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[tuple[Any, ...]] = []

    async def recorded(used: Any, requests: list[EmbeddingRequest]) -> Any:
        computed.extend(request.inputs for request in requests)
        return await batched(used, requests)

    monkeypatch.setattr(embedding, "batched", recorded)
    first, first_tokens = vectors_of(client, ["one", "two"])
    mixed, mixed_tokens = vectors_of(client, ["two", "three", "one"])
    again, again_tokens = vectors_of(client, ["one", "two"])
    assert computed == [("one", "two"), ("three",)]
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(mixed[[2, 0]], first)
    assert (first_tokens, mixed_tokens, again_tokens) == (10, 17, 10)


def test_openais_token_ids_are_the_text_they_stand_for(client: Any) -> None:
    texts, text_tokens = vectors_of(client, ["hello", "sea"])
    ids, id_tokens = vectors_of(client, [list(b"hello"), list(b"sea")])
    np.testing.assert_array_equal(ids, texts)
    assert id_tokens == text_tokens == 12


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [100_256]}, "input"),
        ({"input": "a", "prompt_name": "nope"}, "prompt_name"),
        ({"input": "a", "dimensions": 65}, "dimensions"),
        ({"input": "a" * 3000}, "input"),
        ({"input": ["a" * 1500] * 2, "late_chunking": True}, "input"),
        ({"input": "a", "truncate_prompt_tokens": 2}, "truncate_prompt_tokens"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_the_engine_refuses(client: Any, fields: dict[str, Any], param: str) -> None:
    reply = client.post("/v1/embeddings", json={"model": MODEL, **fields})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


def test_the_models_own_prompts(client: Any) -> None:
    as_query, _ = vectors_of(client, "sea", input_type="query")
    by_name, _ = vectors_of(client, "sea", prompt_name="query")
    by_hand, _ = vectors_of(client, "query: sea")
    np.testing.assert_array_equal(as_query, by_hand)
    np.testing.assert_array_equal(by_name, by_hand)
    as_document, _ = vectors_of(client, "sea", input_type="document")
    np.testing.assert_array_equal(as_document, vectors_of(client, "sea")[0])


def test_late_chunks_have_a_vector_each_and_count_one_context(client: Any) -> None:
    rows, tokens = vectors_of(client, ["one", "two"], late_chunking=True)
    assert rows.shape == (2, 64)
    assert tokens == 8


def test_tei_reads_and_writes_tokens(client: Any) -> None:
    (tokens,) = client.post("/tokenize", json={"inputs": "sea"}).json()
    assert [token["text"] for token in tokens] == ["[CLS]", "s", "e", "a", "[SEP]"]
    ids = [token["id"] for token in tokens]
    assert client.post("/decode", json={"ids": ids}).json() == ["sea"]
    embedded = client.post("/embed", json={"inputs": [ids]}).json()
    np.testing.assert_allclose(embedded, vectors_of(client, "sea")[0], atol=1e-6)
    assert client.get("/info").json()["max_input_length"] == 2048


def test_tei_says_that_a_model_has_no_sparse_vectors(client: Any) -> None:
    reply = client.post("/embed_sparse", json={"inputs": "sea"})
    assert reply.status_code == 400
    assert "sparse" in reply.json()["error"]["message"]


COHERE = {"model": MODEL, "input_type": "query", "truncate": "NONE"}
LONG_PART = {"content": [{"type": "text", "text": "a" * 3000}]}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/embed", {"inputs": "a" * 3000, "truncate": False}, "inputs"),
        ("/embed", {"inputs": [100_000]}, "inputs"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["\u2028" * 3000]},
                         "parameters": {"truncate": False}}, "inputs"),
        ("/v2/embed", COHERE | {"texts": ["a" * 3000]}, "texts"),
        ("/v2/embed", COHERE | {"inputs": [LONG_PART]}, "inputs"),
        ("/v2/embed", COHERE | {"texts": ["a"], "output_dimension": 65}, "output_dimension"),
        ("/v2/embed", COHERE | {"texts": ["a"], "max_tokens": 2}, "texts"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_the_engines_refusals_name_the_fields_of_the_shape(
    client: Any, path: str, body: dict[str, Any], param: str
) -> None:
    error = client.post(path, json=body)
    assert error.status_code == 400
    assert error.json()["error"]["param"] == param
    assert "'input'" not in error.json()["error"]["message"]
