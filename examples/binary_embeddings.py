"""Search in 48 bytes per text with Cohere's client: python examples/binary_embeddings.py [URL]"""

from __future__ import annotations

import os
import sys

import cohere
import numpy as np

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = cohere.ClientV2(api_key=os.environ.get("INFERENCE_API_KEY", "unused"), base_url=base_url)


def bits_of(texts: list[str], purpose: str) -> np.ndarray:
    """One bit per dimension, eight to a byte: [texts, bytes]."""
    reply = client.embed(
        model="all-minilm-l6-v2", texts=texts, input_type=purpose, embedding_types=["ubinary"]
    )
    return np.array(reply.embeddings.ubinary, dtype=np.uint8)


documents = ["The cat sleeps on the sofa.", "Interest rates rose again.", "A dog barks outside."]
stored = bits_of(documents, "search_document")
query = bits_of(["Which sentence is about money?"], "search_query")

# The fewer bits differ, the closer the texts are.
distances = np.bitwise_count(stored ^ query).sum(axis=1)
for index in np.argsort(distances):
    print(f"{distances[index]:3} of {stored.shape[1] * 8} bits differ  {documents[index]}")
