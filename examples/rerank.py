"""Reranking with Cohere's client, and in Jina's shape: python examples/rerank.py [base URL]"""

from __future__ import annotations

import os
import sys

import cohere
import httpx

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
key = os.environ.get("INFERENCE_API_KEY", "unused")
client = cohere.ClientV2(api_key=key, base_url=base_url)

MODEL = "ms-marco-minilm-l-12-v2"
query = "What do you know about the panda bear?"
documents = [
    "Paris is the capital of France.",
    "The giant panda is a bear endemic to China.",
    "Pandas is a data analysis library for Python.",
]
reply = client.rerank(model=MODEL, query=query, documents=documents, top_n=2)
for result in reply.results:
    print(f"{result.relevance_score:.3f}  {documents[result.index]}")

# What is sent to Jina's https://api.jina.ai/v1/rerank.
body = {"model": MODEL, "query": query, "documents": documents, "return_documents": True}
headers = {"authorization": f"Bearer {key}"}
answer = httpx.post(f"{base_url}/v1/rerank", json=body, headers=headers, timeout=120)
best = answer.raise_for_status().json()["results"][0]
print("best:", best["document"]["text"])
