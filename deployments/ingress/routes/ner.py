"""POST /v1/ner: entities in texts."""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request

from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.classification import (
    TextsUsage,
    check_inputs,
    text_model,
    texts_usage,
)
from deployments.ingress.schemas import LenientBody, ModelName, Reply, Texts
from deployments.ingress.server import Endpoint, Server
from models.types.classification import Aggregation, EntityRequest


class NerBody(KeepAliveFields, LenientBody):
    """`aggregation_strategy` as in transformers' pipeline. Texts may be of any length."""

    model: ModelName
    texts: Texts
    aggregation_strategy: Aggregation = "simple"


class FoundEntity(Reply):
    """`start` and `end` count the characters of the text; `label` is the same as `entity`."""

    text: str
    label: str
    entity: str
    score: float
    start: int
    end: int


class TextEntities(Reply):
    index: int
    entities: list[FoundEntity]


class Entities(Reply):
    object: Literal["list"] = "list"
    model: str
    data: list[TextEntities]
    total_count: int
    usage: TextsUsage


async def find_entities(server: Server, request: Request, body: NerBody) -> Entities:
    """Find named entities with their characters."""
    del request
    texts = tuple(body.texts)
    check_inputs(server, "texts", texts)
    spec = text_model(server, body.model)
    job = EntityRequest(texts, body.aggregation_strategy)
    result = await server.clients.classification.entities.submit(spec.id, job)
    data = [
        TextEntities(
            index=index,
            entities=[
                FoundEntity(
                    text=text[entity.start : entity.end],
                    label=entity.label,
                    entity=entity.label,
                    score=entity.score,
                    start=entity.start,
                    end=entity.end,
                )
                for entity in entities
            ],
        )
        for index, (text, entities) in enumerate(zip(texts, result.entities, strict=True))
    ]
    usage = texts_usage(result.usage.prompt_tokens, len(texts))
    return Entities(model=spec.id, data=data, total_count=len(data), usage=usage)


ENDPOINTS = (
    Endpoint("POST", "/v1/ner", find_entities, "classification", body=NerBody, response=Entities),
)
