"""Document models on the real graph: pages rendered and read there, answers with their places."""

from __future__ import annotations

import base64
from typing import Any

from tests.documents import pdf, scanned_pdf, text_page
from tests.integration.conftest import RunningServer

PAPER = pdf([text_page(["invoice 2041", "total 12"]), text_page(["nothing to pay"])])


def ask(server: RunningServer, model: str, content: bytes = PAPER, **body: Any) -> Any:
    url = "data:application/pdf;base64," + base64.b64encode(content).decode()
    document = {"type": "document_url", "document_url": url}
    body |= {"model": model, "document": document}
    return server.client.post("/v1/documents/extract", json=body)


def test_donut_reads_pixels_of_every_page(server: RunningServer) -> None:
    reply = ask(server, "receipts")
    assert reply.status_code == 200, reply.text
    data = reply.json()["data"]
    assert [entry["page"] for entry in data] == [0, 1]
    assert data[0]["data"] == {"menu": [{"nm": "tea"}, {"nm": "cake"}], "total": "12"}
    assert [field["key"] for field in data[1]["fields"]] == ["menu.0.nm", "menu.1.nm", "total"]
    assert all(0.5 < field["confidence"] <= 1 for field in data[0]["fields"])
    (second,) = ask(server, "receipts", pages="1").json()["data"]
    assert second["page"] == 1


def test_layoutlm_finds_values_where_they_stand(server: RunningServer) -> None:
    first, second = ask(server, "digits").json()["data"]
    assert [(f["key"], f["value"], f["page"]) for f in first["fields"]] == [
        ("TOTAL", "2041", 0),
        ("TOTAL", "12", 0),
    ]
    assert first["data"] == {"TOTAL": ["2041", "12"]}
    assert (second["fields"], second["data"], second["confidence"]) == ([], {}, None)
    scanned = ask(server, "digits", scanned_pdf(["invoice 2041"]), dpi=72).json()["data"]
    (field,) = scanned[0]["fields"]
    assert field["value"] == "2041"
    left, top, right, bottom = field["bbox"]
    assert 140 < left < right < 260
    assert 60 < top < bottom < 110
    assert field["confidence"] == field["model_confidence"] * field["ocr_confidence"]


def test_questions_are_asked_of_every_page(server: RunningServer) -> None:
    questions = ["how much", "who pays"]
    data = ask(server, "answers", task="vqa", questions=questions).json()["data"]
    assert [(e["page"], e["question"]) for e in data] == [
        (page, question) for page in (0, 1) for question in questions
    ]
    assert all(entry["answer"] in "invoice 2041 total 12" for entry in data[:2])
    assert all(entry["answer"] in "nothing to pay" for entry in data[2:])
    assert all(len(entry["bbox"]) == 4 for entry in data)


def test_what_a_model_cannot_do_is_refused(server: RunningServer) -> None:
    refused = ask(server, "receipts", task="vqa", questions=["who"])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "task"
    assert "does extraction, not vqa" in refused.json()["error"]["message"]
    reading = server.client.post("/v1/ocr", json={"model": "digits", "images": ["aGk="]})
    assert reading.status_code == 400
    assert reading.json()["error"]["param"] == "model"
