"""What a hundred lines of FastAPI give: sentence-transformers behind two routes, a request a call.

    python naive_server.py PORT EMBEDDER RERANKER THREADS

FastAPI runs the handlers in its thread pool, as its users' handlers run; the pool has THREADS
threads (0: FastAPI's own 40).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from sentence_transformers import CrossEncoder, SentenceTransformer


def make_app(embedder: str, reranker: str, threads: int) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if threads:
            current_default_thread_limiter().total_tokens = threads
        yield

    app = FastAPI(lifespan=lifespan)
    encoder = SentenceTransformer(embedder, device="cpu")
    judge = CrossEncoder(reranker, device="cpu")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/embeddings")
    def embeddings(body: dict[str, Any]) -> dict[str, Any]:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        vectors = encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return {
            "object": "list",
            "data": [{"index": i, "embedding": v.tolist()} for i, v in enumerate(vectors)],
        }

    @app.post("/rerank")
    def rerank(body: dict[str, Any]) -> dict[str, Any]:
        pairs = [(body["query"], document) for document in body["documents"]]
        scores = judge.predict(pairs, show_progress_bar=False).tolist()
        return {
            "results": [{"index": i, "relevance_score": score} for i, score in enumerate(scores)]
        }

    return app


if __name__ == "__main__":
    app = make_app(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
