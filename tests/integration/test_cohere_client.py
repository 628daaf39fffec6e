"""Cohere's clients, both versions, against the real reranker and the real encoder."""

from __future__ import annotations

import cohere
import numpy as np
import pytest

from tests.integration.conftest import RunningServer

MODEL = "ms-marco-minilm-l-12-v2"
ENCODER = "all-minilm-l6-v2"
QUERY = "What do you know about the panda bear?"
DOCUMENTS = [
    "Paris is the capital of France.",
    "The giant panda is a bear species endemic to China.",
    "Bread is made of flour and water.",
]


def test_rerank_v2(server: RunningServer) -> None:
    client = cohere.ClientV2(api_key="unused", base_url=server.url, httpx_client=server.client)
    reply = client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)
    assert reply.results[0].index == 1
    assert len(reply.results) == 3
    scores = [result.relevance_score for result in reply.results]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.5 > scores[1]


def test_rerank_v1_with_documents(server: RunningServer) -> None:
    client = cohere.Client(api_key="unused", base_url=server.url, httpx_client=server.client)
    reply = client.rerank(
        model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=1, return_documents=True
    )
    assert len(reply.results) == 1
    assert reply.results[0].document is not None
    assert reply.results[0].document.text == DOCUMENTS[1]


def test_unknown_model(server: RunningServer) -> None:
    client = cohere.ClientV2(api_key="unused", base_url=server.url, httpx_client=server.client)
    with pytest.raises(cohere.NotFoundError):
        client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS)


def test_windows_find_what_cutting_loses(server: RunningServer) -> None:
    """The answer stands at the end of a document that is longer than the model reads."""
    documents = ["Bread is made of flour and water. " * 120 + DOCUMENTS[1], DOCUMENTS[0]]
    client = cohere.Client(api_key="unused", base_url=server.url, httpx_client=server.client)

    def score(**options: int) -> float:
        reply = client.rerank(model=MODEL, query=QUERY, documents=documents, **options)
        return next(r.relevance_score for r in reply.results if r.index == 0)

    assert score() < 0.001
    assert score(max_chunks_per_doc=10) > 0.1


def test_embed_v2_in_every_number_format(server: RunningServer) -> None:
    client = cohere.ClientV2(api_key="unused", base_url=server.url, httpx_client=server.client)
    reply = client.embed(
        model=ENCODER, texts=DOCUMENTS, input_type="search_document", output_dimension=256,
        embedding_types=["float", "int8", "uint8", "binary", "ubinary", "base64"],
    )  # fmt: skip
    vectors = np.array(reply.embeddings.float_)
    assert vectors.shape == (3, 256)
    as_int8 = np.array(reply.embeddings.int8)
    products = (as_int8 * as_int8[::-1]).sum(axis=1) / 127**2
    np.testing.assert_allclose(products, (vectors * vectors[::-1]).sum(axis=1), atol=0.02)
    assert np.array_equal(np.array(reply.embeddings.uint8) - 128, as_int8)
    bits = np.unpackbits(np.array(reply.embeddings.ubinary, dtype=np.uint8), axis=1)
    assert np.array_equal(bits, vectors > 0)
    assert np.array_equal(np.array(reply.embeddings.binary) + 128, reply.embeddings.ubinary)
    assert reply.meta is not None
    assert reply.meta.billed_units is not None
    assert reply.meta.billed_units.input_tokens > 20


def test_embed_v1(server: RunningServer) -> None:
    client = cohere.Client(api_key="unused", base_url=server.url, httpx_client=server.client)
    reply = client.embed(model=ENCODER, texts=DOCUMENTS, input_type="search_document")
    assert np.array(reply.embeddings).shape == (3, 384)
