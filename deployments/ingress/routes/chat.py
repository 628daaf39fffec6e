"""POST /v1/chat/completions."""

from __future__ import annotations

import time
import uuid

from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.generations import collect, usage_of
from deployments.ingress.routes.chat_reply import ChatCompletion, chat_choice, chat_chunks
from deployments.ingress.routes.chat_request import ChatBody
from deployments.ingress.server import Endpoint, Server
from deployments.ingress.sse import Envelope, event_stream


async def create_chat_completion(
    server: Server, request: Request, body: ChatBody
) -> ChatCompletion | Response:
    """Answer a conversation, whole or as a stream of chunks."""
    del request
    spec = server.model(body.model, "generation")
    deltas = server.clients.generation.stream(spec.id, [body.generation_request(server)])
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": spec.id}
    if body.service_tier is not None:
        head["service_tier"] = "default"
    functions = body.calls_functions
    if body.stream:
        envelope = Envelope({**head, "object": "chat.completion.chunk"})
        include_usage = body.include_usage
        return await event_stream(
            chat_chunks(
                deltas, envelope, n=body.n, include_usage=include_usage, functions=functions
            )
        )
    choices = await collect(deltas, body.n)
    return ChatCompletion.model_validate(
        {
            **head,
            "choices": [
                chat_choice(index, choice, logprobs=body.logprobs, functions=functions)
                for index, choice in enumerate(choices)
            ],
            "usage": usage_of([[choice.usage for choice in choices]]),
        }
    )


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/chat/completions",
        create_chat_completion,
        "generation",
        body=ChatBody,
        response=ChatCompletion,
        streams=True,
    ),
)
