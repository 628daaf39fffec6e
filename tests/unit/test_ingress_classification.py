"""Classification over HTTP, with fake replicas: shapes, limits, fitted classifiers, moderation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from openai.types import ModerationCreateResponse

from config.catalog import Catalog
from config.settings import AppConfig, LimitSettings
from models.errors import InputTooLongError, ModelNotFoundError, UnsupportedTaskError
from models.types.classification import (
    ClassificationRequest,
    ClassificationResult,
    ClassifierFitRequest,
    ClassifierInfo,
    ClassifierRequest,
    Entity,
    EntityRequest,
    EntityResult,
    LabelScores,
)
from models.types.common import Usage
from models.types.texts import EmbeddingRequest, EmbeddingResult
from tests.fakes import CLASSIFIERS, FakeReplicas, make_client

LABELS = ("anger", "joy", "fear")
SCORES = np.array([0.25, 0.625, 0.125], np.float32)
LOGITS = np.array([0.5, 2.0, -1.0], np.float32)


async def classify(model_id: str, requests: list[ClassificationRequest]) -> list[Any]:
    """The same for every text; the labels are the request's where it has some."""
    results: list[Any] = []
    for request in requests:
        if request.texts[0] == "long":
            results.append(InputTooLongError(900, 512, "input"))
            continue
        rows = len(request.texts)
        labels = request.labels or LABELS
        scores = np.tile(SCORES[: len(labels)], (rows, 1))
        logits = np.tile(LOGITS[: len(labels)], (rows, 1))
        results.append(ClassificationResult(labels, logits, scores, Usage(7 * rows)))
    return results


async def find_entities(model_id: str, requests: list[EntityRequest]) -> list[Any]:
    if model_id != "classifier-model":
        raise UnsupportedTaskError("The model does not find entities.", "model")
    found = (Entity("PER", 0.75, 0, 3), Entity("LOC", 0.5, 7, 12))
    return [EntityResult(tuple(found for _ in r.texts), Usage(20)) for r in requests]


def replicas() -> FakeReplicas:
    return FakeReplicas({"classify": classify, "find_entities": find_entities})


def post(path: str, body: Any, fake: FakeReplicas | None = None, **options: Any) -> Any:
    return make_client({"classification": fake or replicas()}, **options).post(path, json=body)


MODEL = {"model": "classifier-model"}


@pytest.mark.parametrize("path", ["/v1/classify", "/classify"])
def test_texts_are_answered_in_the_predecessors_shape(path: str) -> None:
    fake = replicas()
    body = MODEL | {"texts": ["a", "b"], "max_length": 64}
    reply = post(path, body, fake).json()
    assert reply["data"][1] == {
        "index": 1,
        "label": "joy",
        "score": 0.625,
        "all_scores": {"anger": 0.25, "joy": 0.625, "fear": 0.125},
    }
    assert (reply["object"], reply["total_count"]) == ("list", 2)
    assert reply["usage"] == {"prompt_tokens": 14, "total_tokens": 14, "texts_processed": 2}
    ((method, (model_id, requests)),) = fake.calls
    assert (method, model_id) == ("classify", "classifier-model")
    assert requests == [ClassificationRequest(("a", "b"), max_tokens=64)]


@pytest.mark.parametrize("wire", ["a", ["a"]])
def test_input_is_answered_in_vllms_shape(wire: Any) -> None:
    reply = post("/classify", MODEL | {"input": wire}).json()
    assert reply["data"] == [
        {"index": 0, "label": "joy", "probs": [0.25, 0.625, 0.125], "num_classes": 3}
    ]
    assert reply["object"] == "list"
    assert reply["id"].startswith("classify-")
    assert reply["created"] > 1_700_000_000
    assert reply["usage"]["prompt_tokens"] == 7


def test_input_with_labels_is_answered_in_jinas_shape() -> None:
    fake = replicas()
    body = MODEL | {"input": [{"text": "a"}, "b"], "labels": ["x", "y"], "multi_label": True}
    reply = post("/v1/classify", body | {"hypothesis_template": "{}!"}, fake).json()
    assert reply["data"][1] == {
        "object": "classification",
        "index": 1,
        "prediction": "y",
        "score": 0.625,
        "predictions": [{"label": "y", "score": 0.625}, {"label": "x", "score": 0.25}],
    }
    assert reply["usage"]["total_tokens"] == 14
    (request,) = fake.calls[0][1][1]
    assert request == ClassificationRequest(
        ("a", "b"), labels=("x", "y"), hypothesis="{}!", multi_label=True
    )


@pytest.mark.parametrize(("raw", "best"), [(False, 0.625), (True, 2.0)])
def test_raw_scores_are_answered_in_infinitys_shape(raw: bool, best: float) -> None:
    reply = post("/classify", MODEL | {"input": ["a"], "raw_scores": raw}).json()
    assert reply["object"] == "classify"
    ((first, second, third),) = reply["data"]
    assert first == {"label": "joy", "score": best}
    assert [second["label"], third["label"]] == ["anger", "fear"]


@pytest.mark.parametrize(
    ("wire", "inputs", "shape"),
    [
        ("a", ("a",), (3,)),
        (["a"], ("a",), (3,)),
        (["a", "b"], (("a", "b"),), (3,)),
        ([["a"], ["b", "c"]], ("a", ("b", "c")), (2, 3)),
    ],
)
def test_predict_in_teis_shape(wire: Any, inputs: Any, shape: tuple[int, ...]) -> None:
    fake = replicas()
    reply = post("/predict", {"inputs": wire}, fake).json()
    rows = [reply] if len(shape) == 1 else reply
    labels = np.array([[entry["label"] for entry in row] for row in rows]).reshape(shape)
    assert (labels == ["joy", "anger", "fear"]).all()
    ((_, (model_id, (request,))),) = fake.calls
    assert model_id == "classifier-model"
    assert request.texts == inputs
    raw = post("/predict", {"inputs": "a", "raw_scores": True}).json()
    assert [entry["score"] for entry in raw] == [2.0, 0.5, -1.0]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/classify", {}, "input"),
        ("/v1/classify", {"input": "a", "texts": ["a"]}, "input"),
        ("/v1/classify", {"input": ""}, "input"),
        ("/v1/classify", {"input": []}, "input"),
        ("/v1/classify", {"texts": ["a", ""]}, "texts"),
        ("/v1/classify", {"texts": "a"}, "texts"),
        ("/v1/classify", {"input": [{"image": "x"}]}, "input"),
        ("/v1/classify", {"input": "a", "labels": []}, "labels"),
        ("/v1/classify", {"input": "a", "labels": [""]}, "labels"),
        ("/v1/classify", {"input": "a", "labels": ["x"] * 257}, "labels"),
        ("/v1/classify", {"input": "a", "max_length": 0}, "max_length"),
        ("/v1/classify", {"input": "a", "raw_scores": 1}, "raw_scores"),
        ("/v1/classify", {"texts": ["long"]}, "texts"),
        ("/predict", {"inputs": []}, "inputs"),
        ("/predict", {"inputs": ["a", "b", "c"]}, "inputs"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, "inputs"),
        ("/predict", {"inputs": [[]]}, "inputs"),
        ("/predict", {"inputs": [["a", ""]]}, "inputs"),
        ("/predict", {"inputs": "long"}, "inputs"),
        ("/v1/ner", {"texts": []}, "texts"),
        ("/v1/ner", {"texts": ["a"], "aggregation_strategy": "best"}, "aggregation_strategy"),
        ("/v1/moderations", {"input": [""]}, "input"),
        ("/v1/moderations", {"input": []}, "input"),
        ("/v1/moderations", {"input": [{"type": "image_url", "image_url": {}}]}, "input"),
    ],
    ids=str,
)
def test_bad_bodies(path: str, body: dict[str, Any], param: str) -> None:
    response = post(path, body if path in ("/predict", "/v1/moderations") else MODEL | body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith(param)


def test_limits_count_texts_times_labels() -> None:
    config = AppConfig(limits=LimitSettings(max_inputs=4, max_total_chars=40, max_input_chars=15))
    for path, body, param in (
        ("/v1/classify", {"input": ["a"] * 5}, "input"),
        ("/v1/classify", {"texts": ["a" * 16]}, "texts"),
        ("/v1/classify", {"input": ["a"] * 3, "labels": ["x", "y"]}, "labels"),
        ("/v1/classify", {"input": "a" * 15, "labels": ["x", "y", "z"]}, "labels"),
        ("/predict", {"inputs": [["a"]] * 5}, "inputs"),
        ("/v1/ner", {"texts": ["a"] * 5}, "texts"),
        ("/v1/moderations", {"input": ["a"] * 5}, "input"),
        (
            "/v1/classifier/fit",
            {"model": "m", "training_data": [{"text": "a", "label": "x"}] * 5},
            "training_data",
        ),
    ):
        fake = replicas()
        response = post(path, MODEL | body, fake, config=config)
        assert response.status_code == 400, body
        assert response.json()["error"]["param"] == param
        assert not fake.calls
    assert post("/v1/classify", MODEL | {"input": "a", "labels": ["x"] * 4}, config=config)


def test_which_model_answers() -> None:
    for path, body in (
        ("/v1/classify", {"input": "a"}),
        ("/v1/ner", {"texts": ["a"]}),
        ("/predict", {"inputs": "a"}),
        ("/v1/moderations", {"input": "a"}),
    ):
        for model, status, code in (
            ("gone", 404, "model_not_found"),
            ("rerank-model", 400, "model_not_supported"),
            ("classifiers", 400, "model_not_supported"),
            ("../../etc/passwd", 404, "model_not_found"),
        ):
            response = post(path, body | {"model": model})
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    refused = post("/v1/ner", {"model": "moderator", "texts": ["a"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_not_supported")


def test_entities_have_the_text_that_they_stand_for() -> None:
    fake = replicas()
    body = MODEL | {"texts": ["Ada is in Paris"], "aggregation_strategy": "first"}
    reply = post("/v1/ner", body, fake).json()
    ((first, second),) = [entry["entities"] for entry in reply["data"]]
    assert first == {
        "text": "Ada",
        "label": "PER",
        "entity": "PER",
        "score": 0.75,
        "start": 0,
        "end": 3,
    }
    assert second["text"] == "in Pa"[:5]
    assert reply["total_count"] == 1
    assert fake.calls[0][1][1] == [EntityRequest(("Ada is in Paris",), "first")]


# --- zero-shot by an embedding model ---------------------------------------------------------


async def embed(model_id: str, requests: list[EmbeddingRequest]) -> list[Any]:
    """Texts are their first letter: unit vectors of six dimensions."""
    return [
        EmbeddingResult(
            np.stack([np.eye(6, dtype=np.float32)[ord(text[0]) % 6] for text in request.inputs]),  # type: ignore[arg-type]
            Usage(3 * len(request.inputs)),
        )
        for request in requests
    ]


def test_an_embedding_model_judges_by_similarity() -> None:
    fake = FakeReplicas({"embed": embed})
    body = {"model": "embedding-model", "input": ["apple", "bread"], "labels": ["b", "a"]}
    reply = make_client({"embedding": fake}).post("/v1/classify", json=body).json()
    assert [entry["prediction"] for entry in reply["data"]] == ["a", "b"]
    assert reply["data"][0]["score"] > 0.999
    assert reply["usage"]["total_tokens"] == 12
    (request,) = fake.calls[0][1][1]
    assert (request.purpose, request.truncate) == ("classification", True)
    same = make_client({"embedding": fake}).post("/v1/classify", json=body | {"labels": ["a", "a"]})
    assert same.json()["error"]["param"] == "labels"
    for field, value in (("multi_label", True), ("hypothesis_template", "It is {}.")):
        refused = make_client({"embedding": fake}).post("/v1/classify", json=body | {field: value})
        assert refused.json()["error"]["param"] == field
    without = make_client({"embedding": fake}).post(
        "/v1/classify", json={"model": "embedding-model", "input": "a"}
    )
    assert without.json()["error"]["code"] == "model_not_supported"


# --- fitted classifiers ----------------------------------------------------------------------

INFO = ClassifierInfo(
    name="mood",
    version=3,
    created=1,
    size_bytes=99,
    base_model="embedding-model",
    fingerprint="",
    dimensions=6,
    labels=("bad", "good"),
    samples=2,
    head="logistic",
)


def library() -> FakeReplicas:
    async def fit(model_id: str, request: ClassifierFitRequest) -> ClassifierInfo:
        assert model_id == "classifiers"
        return INFO

    async def predict(model_id: str, requests: list[ClassifierRequest]) -> list[Any]:
        return [
            LabelScores(INFO.labels, np.tile(SCORES[:2], (len(r.vectors), 1)), 3) for r in requests
        ]

    async def list_classifiers(model_id: str) -> list[ClassifierInfo]:
        return [INFO]

    async def get_classifier(model_id: str, name: str) -> ClassifierInfo:
        if name != "mood":
            raise ModelNotFoundError(name)
        return INFO

    async def delete_classifier(model_id: str, name: str) -> None:
        await get_classifier(model_id, name)

    methods = (fit, predict, list_classifiers, get_classifier, delete_classifier)
    return FakeReplicas({method.__name__: method for method in methods})


EXAMPLES = [{"text": "awful", "label": "bad"}, {"text": "great", "label": "good"}]


def test_a_fit_sends_vectors_of_the_base_model() -> None:
    fake, encoder = library(), FakeReplicas({"embed": embed})
    client = make_client({"classification": fake, "embedding": encoder})
    body = {
        "model": "mood",
        "training_data": EXAMPLES,
        "labels": [{"label": "odd", "description": "strange"}, {"label": "bad"}],
        "num_iterations": 20,
        "batch_size": 16,
    }
    reply = client.post("/v1/classifier/fit", json=body).json()
    assert (reply["model"], reply["version"], reply["labels"]) == ("mood", 3, ["bad", "good"])
    assert (reply["samples_fitted"], reply["num_classes"], reply["status"]) == (2, 2, "fitted")
    (embedded,) = encoder.calls[0][1][1]
    assert embedded.inputs == ("awful", "great", "strange")
    request = fake.calls[0][1][1]
    assert (request.name, request.base_model) == ("mood", "embedding-model")
    assert len(request.fingerprint) == 64
    assert request.examples.labels == ("bad", "good")
    assert request.descriptions.labels == ("odd",)
    assert request.examples.vectors.shape == (2, 6)
    assert request.descriptions.vectors.argmax() == ord("s") % 6


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"training_data": EXAMPLES[:1]}, "training_data"),
        ({"training_data": []}, "training_data"),
        ({"training_data": [{"text": "", "label": "a"}]}, "training_data"),
        ({"training_data": [{"text": " ", "label": "a"}, *EXAMPLES]}, "training_data"),
        ({"training_data": [{"text": "a", "label": ""}]}, "training_data"),
        ({"labels": [{"label": "no examples"}]}, "labels"),
        ({"labels": [{"label": "x", "description": " "}]}, "labels"),
        ({"labels": [{"label": str(i), "description": "d"} for i in range(257)]}, "labels"),
        ({"model": "../x"}, "model"),
        ({"model": "a/b"}, "model"),
        ({"model": ""}, "model"),
        ({"model": "x" * 80}, "model"),
        ({"base_model": "rerank-model"}, "base_model"),
    ],
    ids=str,
)
def test_bad_fits_never_reach_a_replica(changes: dict[str, Any], param: str) -> None:
    fake, encoder = library(), FakeReplicas({"embed": embed})
    client = make_client({"classification": fake, "embedding": encoder})
    body = {"model": "mood", "training_data": EXAMPLES} | changes
    response = client.post("/v1/classifier/fit", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith(param)
    assert not fake.calls
    assert not encoder.calls


def test_predictions_of_a_fitted_classifier() -> None:
    fake, encoder = library(), FakeReplicas({"embed": embed})
    client = make_client({"classification": fake, "embedding": encoder})
    body = {"model": "mood", "texts": ["awful", "great"]}
    reply = client.post("/v1/classifier/predict", json=body).json()
    assert (reply["version"], reply["total_count"]) == (3, 2)
    assert reply["data"][0] == {
        "text": "awful",
        "label": "good",
        "score": 0.625,
        "all_scores": {"bad": 0.25, "good": 0.625},
    }
    method, (_, requests) = fake.calls[1]
    assert (method, requests[0].name, requests[0].vectors.shape) == ("predict", "mood", (2, 6))
    gone = client.post("/v1/classifier/predict", json=body | {"model": "gone"})
    assert gone.json()["error"]["code"] == "model_not_found"
    for texts in ([], [""], [" "], "awful"):
        bad = client.post("/v1/classifier/predict", json=body | {"texts": texts})
        assert bad.json()["error"]["param"].startswith("texts")


def test_the_life_of_fitted_classifiers() -> None:
    client = make_client({"classification": library()})
    (listed,) = client.get("/v1/classifier/models").json()["data"]
    assert listed == client.get("/v1/classifier/models/mood").json()
    assert (listed["id"], listed["base_model"], listed["dimensions"]) == (
        "mood",
        "embedding-model",
        6,
    )
    for path in ("/v1/classifier/load", "/v1/classifier/save"):
        reply = client.post(path, json={"model": "mood"}).json()
        assert reply == {
            "model": "mood",
            "version": 3,
            "labels": ["bad", "good"],
            "num_classes": 2,
            "status": "ready",
        }
        assert client.post(path, json={"model": "gone"}).status_code == 404
    assert client.delete("/v1/classifier/models/mood").json()["deleted"] is True
    assert client.delete("/v1/classifier/models/gone").status_code == 404
    for name in ("..", "a/b", "..%2F..", "%21%21"):
        assert client.delete(f"/v1/classifier/models/{name}").status_code in {400, 404, 405}


# --- moderation ------------------------------------------------------------------------------


async def judge(model_id: str, requests: list[ClassificationRequest]) -> list[Any]:
    """Texts that begin with "t" are toxic by 0.75, with "i" insults by 0.625."""
    assert model_id == "moderator"
    assert not any(request.truncate for request in requests)
    labels = ("fine", "insult", "toxic")
    rows = {"t": (0.125, 0.125, 0.75), "i": (0.25, 0.625, 0.125), "f": (0.75, 0.125, 0.125)}
    return [
        ClassificationResult(labels, scores, scores, Usage(3))
        for request in requests
        for scores in [np.array([rows[str(text)[0]] for text in request.texts], np.float32)]
    ]


def moderate(wire: Any, **fields: Any) -> Any:
    client = make_client({"classification": FakeReplicas({"classify": judge})})
    return client.post("/v1/moderations", json={"input": wire} | fields).json()


def test_moderation_in_openais_shape() -> None:
    reply = moderate(["toxic", "fine", "insult"])
    parsed = ModerationCreateResponse.model_validate(reply, strict=True)
    assert [result.flagged for result in parsed.results] == [True, False, True]
    assert parsed.model == "moderator"
    assert parsed.results[0].category_scores.harassment == 0.75
    assert parsed.results[2].category_scores.harassment == 0.625
    assert parsed.results[2].categories.harassment
    first = reply["results"][0]
    assert len(first["categories"]) == len(first["category_scores"]) == 13
    assert first["category_scores"]["violence/graphic"] == 0.0
    assert first["category_applied_input_types"]["harassment"] == ["text"]
    assert first["category_applied_input_types"]["violence"] == []


def test_parts_are_one_input() -> None:
    parts = [{"type": "text", "text": text} for text in ("fine", "toxic")]
    (result,) = moderate(parts, model="moderator")["results"]
    assert result["category_scores"]["harassment"] == 0.75


def test_a_model_without_a_map_does_not_moderate() -> None:
    assert moderate("fine", model="classifier-model")["error"]["code"] == "model_not_supported"


@pytest.mark.parametrize(
    ("path", "body", "what"),
    [
        ("/v1/classify", {"input": "x"}, "classification"),
        ("/predict", {"inputs": "x"}, "classification"),
        ("/v1/moderations", {"input": "x"}, "moderation"),
    ],
)
def test_a_catalogue_without_a_model_for_it_is_told(path: str, body: Any, what: str) -> None:
    reply = post(path, body, catalog=Catalog(models=(CLASSIFIERS,)))
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert reply.json()["error"]["message"].startswith(f"The catalogue has no model for {what};")
