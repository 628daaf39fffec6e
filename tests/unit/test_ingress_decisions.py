"""POST /v1/decisions over HTTP, with a fake model of entailment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from openai.types import Decision

from config.settings import AppConfig, LimitSettings
from models.errors import InvalidInputError
from models.types.classification import ClassificationRequest, ClassificationResult
from models.types.common import Usage
from tests.fakes import FakeReplicas, make_client

SHARES = {
    1: (0.75,),
    2: (0.25, 0.75),
    3: (0.5, 0.25, 0.25),
}
"""The probability of each statement, by how many there are."""


async def classify(model_id: str, requests: list[ClassificationRequest]) -> list[Any]:
    results: list[Any] = []
    for request in requests:
        labels = request.labels or ()
        if "no model of entailment" in labels[0]:
            results.append(InvalidInputError("cannot judge", "labels"))
            continue
        scores = np.array([SHARES[len(labels)]], np.float32)
        results.append(ClassificationResult(labels, scores, scores, Usage(10 * len(labels))))
    return results


PREDICATE = {"type": "predicate", "name": "angry", "instructions": "The customer is angry."}
CHOICE = {
    "type": "choice",
    "instructions": "This is about",
    "choices": [{"value": "billing", "description": "money"}, {"value": True}],
}
SCORE = {
    "type": "score",
    "instructions": "The urgency is",
    "levels": [{"label": "low"}, {"label": "middle"}, {"label": "high", "description": "huge"}],
}


def post(body: dict[str, Any], fake: FakeReplicas | None = None, **options: Any) -> Any:
    client = make_client(
        {"classification": fake or FakeReplicas({"classify": classify})}, **options
    )
    return client.post("/v1/decisions", json={"model": "classifier-model", "input": "help!"} | body)


def asked(fake: FakeReplicas) -> list[ClassificationRequest]:
    return [request for _, (_, requests) in fake.calls for request in requests]


def test_every_kind_of_question_in_openais_shape() -> None:
    fake = FakeReplicas({"classify": classify})
    reply = post({"questions": [PREDICATE, CHOICE, SCORE]}, fake).json()
    parsed = Decision.model_validate(reply, strict=True)
    assert [answer.type for answer in parsed.answers] == ["predicate", "choice", "score"]
    predicate, choice, score = reply["answers"]
    assert predicate == {"type": "predicate", "name": "angry", "probability": 0.75}
    assert (choice["name"], choice["choice"], choice["confidence"]) == (None, True, 0.5)
    assert choice["probabilities"] == [
        {"value": "billing", "probability": 0.25},
        {"value": True, "probability": 0.75},
    ]
    assert score["score"] == 0 * 0.5 + 1 * 0.25 + 2 * 0.25
    assert score["confidence"] == 0  # 0.75 levels from the best one, 2 / 3 by chance
    assert score["probabilities"][2] == {"value": 2, "label": "high", "probability": 0.25}
    assert reply["usage"]["input_tokens"] == reply["usage"]["total_tokens"] == 60
    assert sorted(asked(fake), key=lambda request: len(request.labels or ())) == [
        ClassificationRequest(
            ("help!",),
            labels=("The customer is angry.",),
            hypothesis="{}",
            multi_label=True,
            truncate=False,
        ),
        ClassificationRequest(
            ("help!",),
            labels=("This is about money", "This is about true"),
            hypothesis="{}",
            truncate=False,
        ),
        ClassificationRequest(
            ("help!",),
            labels=("The urgency is low", "The urgency is middle", "The urgency is huge"),
            hypothesis="{}",
            truncate=False,
        ),
    ]


def test_messages_are_read_as_their_texts() -> None:
    fake = FakeReplicas({"classify": classify})
    messages = [
        {"role": "system", "content": "one"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "two"},
                {"type": "input_text", "text": "three"},
            ],
        },
    ]
    assert post({"input": messages, "questions": [PREDICATE]}, fake).is_success
    assert asked(fake)[0].texts == ("one\ntwo\nthree",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"questions": []}, "questions"),
        ({"questions": [{"type": "guess", "instructions": "x"}]}, "questions"),
        ({"questions": [PREDICATE | {"instructions": ""}]}, "questions"),
        ({"questions": [PREDICATE, PREDICATE | {"instructions": " "}]}, "questions.1"),
        ({"questions": [CHOICE | {"choices": [{"value": "a"}]}]}, "questions"),
        ({"questions": [CHOICE | {"choices": [{"value": "a"}, {"value": "a"}]}]}, "questions.0"),
        ({"questions": [CHOICE | {"choices": [{"value": "a"}, {"value": 1}]}]}, "questions"),
        ({"questions": [SCORE | {"levels": [{"label": "a"}] * 11}]}, "questions"),
        ({"questions": [PREDICATE], "input": ""}, "input"),
        ({"questions": [PREDICATE], "input": []}, "input"),
        ({"questions": [PREDICATE], "input": [{"role": "user", "content": ""}]}, "input"),
        ({"questions": [PREDICATE], "input": [{"type": "function_call", "name": "f"}]}, "input"),
        ({"questions": [PREDICATE | {"instructions": "no model of entailment"}]}, "model"),
        ({"questions": [PREDICATE], "model": "rerank-model"}, "model"),
    ],
    ids=str,
)
def test_bad_bodies(body: dict[str, Any], param: str) -> None:
    response = post(body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith(param)


def test_statements_of_all_questions_count_against_the_limits() -> None:
    config = AppConfig(limits=LimitSettings(max_inputs=5, max_total_chars=300))
    for body in (
        {"questions": [SCORE, SCORE]},
        {"input": "x" * 150, "questions": [CHOICE]},
    ):
        fake = FakeReplicas({"classify": classify})
        response = post(body, fake, config=config)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "questions"
        assert not fake.calls
