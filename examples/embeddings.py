"""Semantic search in three lines of numpy: python examples/embeddings.py [base URL]"""

from __future__ import annotations

import os
import sys

import numpy as np
from openai import OpenAI

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = OpenAI(base_url=f"{base_url}/v1", api_key=os.environ.get("INFERENCE_API_KEY", "unused"))

documents = ["The cat sleeps on the sofa.", "Interest rates rose again.", "A dog barks outside."]
query = "Which sentence is about money?"
reply = client.embeddings.create(model="all-minilm-l6-v2", input=[*documents, query])
vectors = np.array([item.embedding for item in reply.data])

# The vectors have unit length: their products are cosines.
for score, document in sorted(
    zip(vectors[:-1] @ vectors[-1], documents, strict=True), reverse=True
):
    print(f"{score:.3f}  {document}")
