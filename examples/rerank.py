"""Reranking with Cohere's client: python examples/rerank.py [base URL]"""

from __future__ import annotations

import sys

import cohere

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = cohere.ClientV2(api_key="unused", base_url=base_url)

documents = [
    "Paris is the capital of France.",
    "The giant panda is a bear endemic to China.",
    "Pandas is a data analysis library for Python.",
]
reply = client.rerank(
    model="ms-marco-minilm-l-12-v2", query="What do you know about the panda bear?",
    documents=documents, top_n=2,
)  # fmt: skip
for result in reply.results:
    print(f"{result.relevance_score:.3f}  {documents[result.index]}")
