"""Embedding clients other than OpenAI's and Cohere's, against the real encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from langchain_openai import OpenAIEmbeddings

from config.catalog import ASSET_CATALOG, load_catalog
from config.paths import default_weights_dir
from tests.integration.conftest import RunningServer
from weights.cache import WeightsCache
from weights.fetch import fetch

MODEL = "all-minilm-l6-v2"
TEXTS = [
    "The giant panda is a bear species endemic to China.",
    "Zürich liegt an der Limmat; größer wird's nicht. 東京は日本の首都です。 🐼",
    "def add(a, b):\n    return a + b\n",
]


def vectors_of(server: RunningServer, **body: Any) -> Any:
    reply = server.client.post("/v1/embeddings", json={"model": MODEL, **body})
    assert reply.status_code == 200, reply.text
    return np.array([item["embedding"] for item in reply.json()["data"]])


def cosines(left: Any, right: Any) -> Any:
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / lengths


@pytest.fixture(scope="module")
def ranks() -> Path:
    """The rank file under the name that tiktoken looks for in its cache."""
    spec = load_catalog(ASSET_CATALOG).find("cl100k-base")
    assert spec is not None
    path = fetch(spec, cache=WeightsCache(default_weights_dir()))
    assert path is not None
    return path


def test_langchain_by_default(
    server: RunningServer, ranks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends cl100k token ids, whatever the model."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(ranks.parent))
    client = OpenAIEmbeddings(model=MODEL, base_url=f"{server.url}/v1", api_key="unused")
    expected = vectors_of(server, input=TEXTS)
    assert (cosines(client.embed_documents(TEXTS), expected) > 0.999).all()
    assert cosines([client.embed_query(TEXTS[0])], expected[:1])[0] > 0.999


def test_token_ids_cost_what_their_text_costs(
    server: RunningServer, ranks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(ranks.parent))
    import tiktoken

    ids = [tiktoken.get_encoding("cl100k_base").encode(text) for text in TEXTS]
    usages = [
        server.client.post("/v1/embeddings", json={"model": MODEL, "input": given}).json()["usage"]
        for given in (ids, TEXTS)
    ]
    assert usages[0] == usages[1]
    bad = server.client.post("/v1/embeddings", json={"model": MODEL, "input": [100_300]})
    assert bad.status_code == 400
    assert bad.json()["error"]["param"] == "input"


def test_hugging_faces_client_of_tei(server: RunningServer) -> None:
    expected = vectors_of(server, input=TEXTS)
    client = InferenceClient(model=f"{server.url}/embed")
    embedded = client.feature_extraction(TEXTS[0], normalize=True, truncate=True)
    assert cosines(embedded, expected[:1])[0] > 0.999
    similar = InferenceClient(model=f"{server.url}/similarity").sentence_similarity(
        TEXTS[0], other_sentences=TEXTS[1:]
    )
    np.testing.assert_allclose(similar, expected[1:] @ expected[0], atol=0.01)


def test_the_rest_of_tei(server: RunningServer) -> None:
    info = server.client.get("/info").json()
    assert info["model_id"] == MODEL
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_input_length"] == 256
    (tokens,) = server.client.post("/tokenize", json={"inputs": "Bears eat"}).json()
    assert [token["text"] for token in tokens] == ["[CLS]", "Bears", "eat", "[SEP]"]
    assert [token["start"] for token in tokens] == [None, 0, 6, None]
    assert [token["stop"] for token in tokens] == [None, 5, 9, None]
    ids = [token["id"] for token in tokens]
    assert server.client.post("/decode", json={"ids": ids}).json() == ["bears eat"]
    by_ids = server.client.post("/embed", json={"inputs": [ids]}).json()
    by_text = server.client.post("/embed", json={"inputs": "Bears eat"}).json()
    assert cosines(by_ids, by_text)[0] > 0.999
    sparse = server.client.post("/embed_sparse", json={"inputs": "Bears eat"})
    assert sparse.status_code == 400
    assert "sparse" in sparse.json()["error"]["message"]


def test_vectors_of_tokens_average_to_the_texts(server: RunningServer) -> None:
    """The model pools by mean."""
    (states,) = server.client.post("/embed_all", json={"inputs": TEXTS[0]}).json()
    mean = np.mean(states, axis=0, keepdims=True)
    assert cosines(mean, vectors_of(server, input=TEXTS[0]))[0] > 0.999


def test_jinas_fields(server: RunningServer) -> None:
    body = {"input": [{"text": TEXTS[0]}], "task": "retrieval.passage"}
    expected = vectors_of(server, input=TEXTS[0])
    assert cosines(vectors_of(server, **body), expected)[0] > 0.999
    as_int8 = vectors_of(server, embedding_type="int8", **body)
    assert cosines(as_int8, expected)[0] > 0.99
    bits = np.unpackbits(vectors_of(server, embedding_type="ubinary", **body).astype(np.uint8))
    assert (bits == (expected[0] > 0)).mean() > 0.99


def test_late_chunks_know_their_context(server: RunningServer) -> None:
    """ "It" is closer to the city where the city was named before."""
    parts = ["Berlin is the capital of Germany.", "It has four million inhabitants."]
    late = vectors_of(server, input=parts, late_chunking=True)
    plain = vectors_of(server, input=parts)
    berlin = vectors_of(server, input="Berlin")[0]
    assert late.shape == plain.shape
    assert late[1] @ berlin > plain[1] @ berlin + 0.1
