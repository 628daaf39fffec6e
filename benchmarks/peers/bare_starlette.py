"""The least that answers the same request: one route of Starlette, one process, no model.

python bare_starlette.py PORT DIMENSIONS
"""

from __future__ import annotations

import sys

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def make_app(dimensions: int) -> Starlette:
    vector = [round(0.001 * i, 3) for i in range(dimensions)]

    async def health(_: Request) -> Response:
        return Response("ok")

    async def embeddings(request: Request) -> Response:
        body = orjson.loads(await request.body())
        item = {"object": "embedding", "index": 0, "embedding": vector}
        reply = {
            "object": "list",
            "data": [item],
            "model": body["model"],
            "usage": {"prompt_tokens": len(body["input"]), "total_tokens": len(body["input"])},
        }
        return Response(orjson.dumps(reply), media_type="application/json")

    routes = [
        Route("/health", health),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
    ]
    return Starlette(routes=routes)


if __name__ == "__main__":
    app = make_app(int(sys.argv[2]))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
