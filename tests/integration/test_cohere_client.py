"""Cohere's clients, both versions, against the real reranker."""

from __future__ import annotations

import cohere
import pytest

from tests.integration.conftest import RunningServer

MODEL = "ms-marco-minilm-l-12-v2"
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
