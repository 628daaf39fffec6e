"""Document models behind POST /v1/documents/extract: what they are asked, what is answered."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from config.catalog import BuiltinSource, Catalog, ModelSpec
from deployments.ingress.app import make_app
from models.errors import UnsupportedTaskError
from models.types.pages import DocumentQuestions, DocumentRequest, PageAnswers, PageField
from tests.fakes import FakeReplicas, make_server
from tests.rendered_pages import encoded

IMAGE = encoded(Image.new("RGB", (8, 8), "white"))
IMAGES = [base64.b64encode(IMAGE).decode()] * 2
FORMS = ModelSpec(id="forms", task="ocr", engine="documents", source=BuiltinSource(kind="builtin"))
TOTAL = PageField("total", "12", 0.5, (1.0, 2.0, 3.0, 4.0), 0.8)
NAME = PageField("name", "Bob", 0.25)


class Replica:
    """Answers every page of a document, of which there are two."""

    def __init__(self, answers: PageAnswers | Exception) -> None:
        self.calls: list[tuple[str, str, DocumentRequest, DocumentQuestions]] = []
        self._answers = answers

    async def answer_document(self, *args: Any) -> AsyncGenerator[PageAnswers]:
        self.calls.append(args)
        for index in range(2):
            if isinstance(self._answers, Exception):
                raise self._answers
            yield replace(self._answers, index=index)


def post(replica: Replica, path: str = "/v1/documents/extract", **body: Any) -> Any:
    streams = {"answer_document": replica.answer_document}
    server = make_server({"ocr": FakeReplicas(streams=streams)})
    catalog = Catalog(models=(FORMS, *server.catalog.models))
    client = TestClient(make_app(replace(server, catalog=catalog)))
    return client.post(path, json={"model": "forms", "images": IMAGES, **body})


def test_fields_of_every_page_have_values_places_and_confidences() -> None:
    data = {"total": "12", "name": "Bob"}
    replica = Replica(PageAnswers((TOTAL, NAME), data, prompt_tokens=7, completion_tokens=3))
    response = post(replica, ocr_model="ocr-model", dpi=100, pages="0-1")
    assert response.status_code == 200, response.text
    reply = response.json()
    assert (reply["model"], reply["task"]) == ("forms", "extraction")
    entries = reply["data"]
    assert [(e["index"], e["document"], e["page"]) for e in entries] == [
        (0, 0, 0),
        (1, 0, 1),
        (2, 1, 0),
        (3, 1, 1),
    ]
    assert entries[1]["data"] == data
    assert entries[1]["fields"] == [
        {
            "key": "total",
            "value": "12",
            "confidence": pytest.approx(0.4),
            "bbox": [1, 2, 3, 4],
            "page": 1,
            "model_confidence": 0.5,
            "ocr_confidence": 0.8,
        },
        {
            "key": "name",
            "value": "Bob",
            "confidence": 0.25,
            "bbox": None,
            "page": 1,
            "model_confidence": 0.25,
            "ocr_confidence": None,
        },
    ]
    assert entries[1]["confidence"] == pytest.approx(0.325)
    assert reply["usage"] == {
        "documents_processed": 2,
        "pages_processed": 4,
        "prompt_tokens": 28,
        "completion_tokens": 12,
    }
    model, ocr_model, wanted, asked = replica.calls[0]
    assert (model, ocr_model, asked) == ("forms", "ocr-model", DocumentQuestions("extraction"))
    assert (wanted.source, wanted.dpi, wanted.pages) == (IMAGE, 100, ((0, 1),))


def test_every_page_gets_every_question() -> None:
    answers = PageAnswers((replace(TOTAL, key="how much"), replace(NAME, key="who", value="")))
    replica = Replica(answers)
    reply = post(replica, task="vqa", questions=["how much", "who"]).json()
    assert [call[3].questions for call in replica.calls] == [("how much", "who")] * 2
    assert [(e["page"], e["question"], e["answer"]) for e in reply["data"]] == [
        *[(0, "how much", "12"), (0, "who", ""), (1, "how much", "12"), (1, "who", "")] * 2
    ]
    assert reply["data"][0]["bbox"] == [1, 2, 3, 4]
    assert reply["data"][0]["confidence"] == pytest.approx(0.4)
    assert "bbox" not in reply["data"][1]
    replica = Replica(answers)
    post(replica, task="vqa", prompts=["how much", "who"])
    assert [call[3].questions for call in replica.calls] == [("how much",), ("who",)]


def test_labels_are_the_model_s() -> None:
    reply = post(
        Replica(PageAnswers(labels=(("letter", 0.25), ("invoice", 0.75)))), task="classification"
    ).json()
    assert reply["data"][0]["classification"] == "invoice"
    assert reply["data"][0]["confidence"] == 0.75
    assert reply["data"][0]["classification_scores"] == {"letter": 0.25, "invoice": 0.75}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"schema": {"type": "object"}}, "schema"),
        ({"task": "classification", "labels": ["a", "b"]}, "labels"),
        ({"prompts": ["mind the total"]}, "prompts"),
        ({"task": "vqa"}, "prompts"),
        ({"task": "vqa", "prompts": ["a", "b", "c"]}, "prompts"),
        ({"task": "vqa", "questions": []}, "questions"),
        ({"task": "vqa", "questions": ["a"], "prompts": ["b"]}, "questions"),
        ({"questions": ["a"]}, "questions"),
        ({"ocr_model": "forms"}, "model"),
    ],
)
def test_what_a_document_model_cannot_be_told(body: dict[str, Any], param: str) -> None:
    replica = Replica(PageAnswers())
    response = post(replica, **body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert not replica.calls


def test_a_task_that_the_model_does_not_do_is_refused() -> None:
    error = UnsupportedTaskError("This model does extraction, not vqa.", "task")
    response = post(Replica(error), task="vqa", prompts=["who"])
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "task"
    assert "does extraction" in response.json()["error"]["message"]


def test_document_models_do_not_read_text() -> None:
    response = post(Replica(PageAnswers()), path="/v1/ocr")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"
    assert "/v1/documents/extract" in response.json()["error"]["message"]


def test_text_is_read_by_the_first_model_that_reads_text() -> None:
    replica = Replica(PageAnswers())
    post(replica)
    assert replica.calls[0][:2] == ("forms", "ocr-model")
