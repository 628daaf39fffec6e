"""Classification on the real graph: fitted on real embeddings, zero-shot, and tiny models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import RunningServer, started, write_config
from tests.tiny_classifiers import NLI, write_classifier, write_token_classifier

EXAMPLES = [
    *({"text": t, "label": "good"} for t in ("I love it", "what a joy", "great", "works well")),
    *({"text": t, "label": "bad"} for t in ("I hate it", "what a bore", "awful", "is broken")),
]


def test_a_classifiers_life(server: RunningServer) -> None:
    fit = server.client.post(
        "/v1/classifier/fit", json={"model": "life", "training_data": EXAMPLES}
    )
    assert fit.status_code == 200, fit.text
    assert (fit.json()["version"], fit.json()["labels"]) == (1, ["bad", "good"])
    body = {"model": "life", "texts": ["wonderful, I am happy", "terrible, I am angry"]}
    predicted = server.client.post("/v1/classifier/predict", json=body).json()["data"]
    assert [row["label"] for row in predicted] == ["good", "bad"]
    models = server.client.get("/v1/classifier/models").json()["data"]
    (listed,) = [entry for entry in models if entry["id"] == "life"]
    assert (listed["base_model"], listed["dimensions"]) == ("all-minilm-l6-v2", 384)
    assert server.client.post("/v1/classifier/load", json={"model": "life"}).status_code == 200
    again = server.client.post(
        "/v1/classifier/fit", json={"model": "life", "training_data": EXAMPLES}
    )
    assert again.json()["version"] == 2
    assert server.client.delete("/v1/classifier/models/life").json()["deleted"] is True
    assert server.client.post("/v1/classifier/predict", json=body).status_code == 404


def test_labels_of_the_request_by_similarity(server: RunningServer) -> None:
    body = {
        "model": "all-minilm-l6-v2",
        "input": ["The striker scored twice.", {"text": "The bank raised its interest rates."}],
        "labels": ["sports", "finance"],
    }
    reply = server.client.post("/v1/classify", json=body)
    assert reply.status_code == 200, reply.text
    assert [row["prediction"] for row in reply.json()["data"]] == ["sports", "finance"]


def test_what_is_not_configured_is_not_found(server: RunningServer) -> None:
    for path, body in (
        ("/v1/moderations", {"input": "a"}),
        ("/predict", {"inputs": "a"}),
        ("/v1/classify", {"input": "a"}),
        ("/v1/ner", {"model": "none", "texts": ["a"]}),
    ):
        reply = server.client.post(path, json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


@pytest.fixture(scope="module")
def tiny_server(tmp_path_factory: Any) -> Iterator[RunningServer]:
    """A server with tiny random classifiers in its catalogue, and nothing else."""
    folder: Path = tmp_path_factory.mktemp("classifiers")
    labels = ("fine", "toxic", "threat")
    write_classifier(folder / "labels", "bert", labels, problem_type="multi_label_classification")
    write_classifier(folder / "nli", "distilbert", NLI)
    write_token_classifier(folder / "entities", "roberta", bytes_bpe=True)
    mapped = {"moderation_labels": {"toxic": "harassment", "threat": "harassment/threatening"}}
    entries = [
        {"id": name, "task": "classification", "engine": "torch"}
        | {"source": {"kind": "path", "path": str(folder / name)}}
        | ({"engine_options": mapped} if name == "labels" else {})
        for name in ("labels", "nli", "entities")
    ]
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"models": entries}))
    config = write_config(folder, {})
    document = yaml.safe_load(config.read_text())
    document["applications"][0]["args"] |= {
        "catalog": str(folder / "catalog.yaml"),
        "model_roots": [str(folder)],
    }
    config.write_text(yaml.safe_dump(document))
    with started(config) as running:
        yield running


def post(server: RunningServer, path: str, **body: Any) -> Any:
    reply = server.client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_every_shape_of_real_classifiers(tiny_server: RunningServer) -> None:
    vllm = post(tiny_server, "/classify", model="labels", input=["a text", "another"])
    runtime = post(tiny_server, "/v1/classify", model="labels", texts=["a text", "another"])
    tei = post(tiny_server, "/predict", inputs=[["a text"], ["another"]])
    for index in range(2):
        scores = runtime["data"][index]["all_scores"]
        assert vllm["data"][index]["probs"] == pytest.approx([*scores.values()], abs=1e-3)
        assert {r["label"]: r["score"] for r in tei[index]} == pytest.approx(scores, abs=1e-3)
    jina = post(tiny_server, "/v1/classify", model="nli", input="a text", labels=["x", "y"])
    assert sum(p["score"] for p in jina["data"][0]["predictions"]) == pytest.approx(1, abs=1e-3)
    question = {
        "type": "choice",
        "instructions": "about",
        "choices": [{"value": "x"}, {"value": "y"}],
    }
    decided = post(tiny_server, "/v1/decisions", model="nli", input="a text", questions=[question])
    assert sum(p["probability"] for p in decided["answers"][0]["probabilities"]) == pytest.approx(
        1, abs=1e-3
    )
    moderated = post(tiny_server, "/v1/moderations", input="a text")["results"][0]
    assert moderated["category_scores"]["harassment"] == pytest.approx(
        runtime["data"][0]["all_scores"]["toxic"], abs=1e-3
    )
    text = "ada met grace in paris. " * 60
    found = post(tiny_server, "/v1/ner", model="entities", texts=[text])["data"][0]["entities"]
    assert found
    assert all(entity["text"] == text[entity["start"] : entity["end"]] for entity in found)


def test_refusals_leave_the_replica_alive(tiny_server: RunningServer) -> None:
    for path, body, status in (
        ("/v1/classify", {"model": "labels", "input": "a " * 9000, "truncate": False}, 400),
        ("/v1/classify", {"model": "labels", "input": "a", "labels": ["x", "y"]}, 400),
        ("/v1/classify", {"model": "entities", "input": "a"}, 400),
        ("/v1/ner", {"model": "labels", "texts": ["a"]}, 400),
        ("/v1/ner", {"model": "entities", "texts": ["\ud800"]}, 400),
        ("/v1/classifier/fit", {"model": "m", "training_data": EXAMPLES}, 404),
    ):
        reply = tiny_server.client.post(
            path, content=json.dumps(body), headers={"content-type": "application/json"}
        )
        assert reply.status_code == status, reply.text
        assert set(reply.json()) == {"error"}
    with ThreadPoolExecutor(16) as clients:
        replies = list(
            clients.map(
                lambda n: post(tiny_server, "/classify", model="labels", input=f"text {n % 4}"),
                range(64),
            )
        )
    probs = [reply["data"][0]["probs"] for reply in replies]
    assert all(row == pytest.approx(probs[n % 4], abs=1e-3) for n, row in enumerate(probs))
