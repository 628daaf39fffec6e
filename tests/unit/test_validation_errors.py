"""A refusal names the field that is at fault, also where a field may have several shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from deployments.ingress.app import all_endpoints
from deployments.ingress.validation_errors import TAGS, explain_validation

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
QUESTION = {"type": "predicate", "instructions": "The sea is calm."}
DECISIONS = {"model": "m", "input": "x"}


def body_of(path: str) -> type[BaseModel]:
    return next(e.body for e in all_endpoints() if e.path == path and e.body is not None)


def refusal(path: str, body: dict[str, Any]) -> tuple[str | None, str]:
    with pytest.raises(ValidationError) as refused:
        body_of(path).model_validate_json(json.dumps(body))
    return explain_validation(refused.value)


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        ("/v1/embeddings", {"input": ["a", 5]}, "input.1", "a valid string"),
        ("/v1/embeddings", {"input": [1, "a"]}, "input.1", "a valid integer"),
        ("/v1/embeddings", {"input": [[1, 2], ["a"]]}, "input.1.0", "a valid integer"),
        ("/v1/embeddings", {"input": ["a", {"txt": 1}]}, "input.1.text", "Field required"),
        ("/v1/embeddings", {"input": []}, "input", "at least 1 item"),
        ("/v1/embeddings", {"input": 5}, "input", "a valid string or a valid array"),
        ("/v1/completions", {"prompt": "a", "stop": ["", "x"]}, "stop.0", "at least 1 char"),
        ("/v1/completions", {"prompt": "a", "stop": ""}, "stop", "at least 1 character"),
        ("/v1/rerank", {"query": "q", "documents": [{"a": 1}]}, "documents.0.text", "required"),
        ("/v1/classify", {"input": ["a", {"text": 5}]}, "input.1.text", "a valid string"),
        ("/v1/anomaly/fit", {"data": [[1.0], ["a", []]]}, "data.1.1", "a valid number"),
        ("/v1/anomaly/fit", {"data": [{"a": 1}, {"B": []}]}, "data.1.B", "a valid number"),
        ("/v1/anomaly/timeseries", {"series": [{}]}, "series.0.value", "Field required"),
        ("/v1/moderations", {"input": [{"type": "text"}]}, "input.0.text", "Field required"),
        ("/predict", {"inputs": [["a"], ["b", 5]]}, "inputs.1.1", "a valid string"),
        ("/embed", {"inputs": ["a", [1, -1]]}, "inputs.1.1", "greater than or equal to 0"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_the_nearest_shape_tells_what_is_wrong(
    path: str, body: dict[str, Any], param: str, message: str
) -> None:
    found, said = refusal(path, {"model": "m", **body})
    assert found == param
    assert message in said
    assert said.endswith(f"({param})")


@pytest.mark.parametrize(
    ("field", "value", "param", "message"),
    [
        ("tool_choice", {"type": "function", "function": {}}, "tool_choice.function.name", "requi"),
        ("tool_choice", "any", "tool_choice", "Input should be 'none', 'auto' or 'required'"),
        ("temperature", "1", "temperature", "Input should be a valid number (temperature)"),
        ("messages", [{"role": "user", "content": [{}]}], "messages.0.content.0.type", "requi"),
    ],
)
def test_fields_of_chats(field: str, value: object, param: str, message: str) -> None:
    found, said = refusal("/v1/chat/completions", {**CHAT, field: value})
    assert found == param
    assert message in said


@pytest.mark.parametrize(
    ("question", "param"),
    [
        (QUESTION | {"instructions": ""}, "questions.0.instructions"),
        (
            QUESTION | {"type": "choice", "choices": [{"value": "a"}, {}]},
            "questions.0.choices.1.value",
        ),
        ({"type": "score", "instructions": "x"}, "questions.0.levels"),
        ({"type": "CANARY"}, "questions.0"),
    ],
)
def test_what_tells_members_of_a_union_apart_is_no_field(
    question: dict[str, Any], param: str
) -> None:
    found, said = refusal("/v1/decisions", {**DECISIONS, "questions": [question]})
    assert found == param
    assert "CANARY" not in said


def test_an_unknown_type_is_answered_with_those_that_there_are() -> None:
    _, said = refusal("/v1/decisions", {**DECISIONS, "questions": [{"type": "guess"}]})
    assert "'predicate', 'choice', 'score'" in said


def test_the_tags_of_unions_are_known() -> None:
    """Of every schema of a request: one that is not would become a part of the field's name."""
    tags: set[str] = set()
    for endpoint in all_endpoints():
        if endpoint.body is not None:
            tags |= set(_tags_in(endpoint.body.model_json_schema()))
    assert tags == TAGS


def _tags_in(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        discriminator = schema.get("discriminator")
        if isinstance(discriminator, dict) and "mapping" in discriminator:
            yield from discriminator["mapping"]
        for part in schema.values():
            yield from _tags_in(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _tags_in(part)
