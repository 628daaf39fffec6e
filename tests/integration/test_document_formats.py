"""A drawn page through the real graph: every format of it, and fields by the real chat model."""

from __future__ import annotations

import base64
import csv
import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pypdfium2
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.documents import scanned_pdf
from tests.integration.conftest import RunningServer
from tests.rendered_pages import encoded

TITLE = "Invoice 2041"
ROWS = [("Item", "Count", "Price"), ("Green tea", "2", "5.00"), ("Coffee", "1", "3.50")]


@pytest.fixture(scope="module")
def scan() -> bytes:
    image = Image.new("RGB", (900, 460), "white")
    draw = ImageDraw.Draw(image)
    draw.text((40, 30), TITLE, "black", ImageFont.load_default(72))
    font = ImageFont.load_default(28)
    draw.text((40, 120), "Thank you for your order.", "black", font)
    for row, cells in enumerate(ROWS):
        for x, text in zip((40, 400, 650), cells, strict=True):
            draw.text((x, 200 + 55 * row), text, "black", font)
    return encoded(image)


def read_as(server: RunningServer, scan: bytes, form: str) -> bytes:
    headers = {"content-type": "image/png"}
    response = server.client.post(f"/v1/ocr?format={form}", content=scan, headers=headers)
    assert response.status_code == 200, response.text
    return response.content


def test_text_and_markdown(server: RunningServer, scan: bytes) -> None:
    assert read_as(server, scan, "text").decode().startswith(TITLE + "\n")
    assert read_as(server, scan, "markdown").decode() == (
        f"# {TITLE}\n\nThank you for your order.\n\n"
        "| Item | Count | Price |\n| --- | --- | --- |\n"
        "| Green tea | 2 | 5.00 |\n| Coffee | 1 | 3.50 |\n"
    )


def test_formats_of_xml_and_tsv(server: RunningServer, scan: bytes) -> None:
    words = " ".join([TITLE, "Thank you for your order.", *(" ".join(row) for row in ROWS)]).split()
    hocr = ElementTree.fromstring(read_as(server, scan, "hocr"))  # noqa: S314 - our own
    assert [e.text for e in hocr.iter() if e.get("class") == "ocrx_word"] == words
    alto = ElementTree.fromstring(read_as(server, scan, "alto"))  # noqa: S314 - our own
    assert [e.get("CONTENT") for e in alto.iter() if e.get("CONTENT")] == words
    rows = csv.DictReader(read_as(server, scan, "tsv").decode().splitlines(), delimiter="\t")
    assert [row["text"] for row in rows if row["level"] == "5"] == words


def test_a_searchable_pdf(server: RunningServer, scan: bytes, tmp_path: Path) -> None:
    data = read_as(server, scan, "pdf")
    with pypdfium2.PdfDocument(data) as document:
        text = document[0].get_textpage()
        start, count = text.search("Coffee").get_next()
        left, bottom, right, top = text.get_rect(0) if count == 0 else text.get_charbox(start)
        height = document[0].get_height()
    scale = 900 / 842
    assert 30 < left * scale < right * scale < 80
    assert 300 < (height - top) * scale < (height - bottom) * scale < 350
    if shutil.which("pdftotext"):
        (tmp_path / "scan.pdf").write_bytes(data)
        run = subprocess.run(
            ["pdftotext", "-layout", tmp_path / "scan.pdf", "-"], capture_output=True, check=True
        )
        assert TITLE in run.stdout.decode()
        assert "Green tea" in run.stdout.decode()


SCHEMA = {
    "type": "object",
    "properties": {
        "number": {"type": "string", "maxLength": 12},
        "total": {"type": "number", "minimum": 0, "maximum": 9999},
        "items": {"type": "array", "items": {"enum": ["Green tea", "Coffee"]}, "maxItems": 2},
    },
    "required": ["number", "total", "items"],
    "additionalProperties": False,
}


def test_fields_fit_the_schema_and_have_boxes_on_the_page(
    server: RunningServer, scan: bytes
) -> None:
    """The starter model is too small for its values to be relied on."""
    images = [base64.b64encode(scan).decode()]
    body = {"images": images, "schema": SCHEMA, "max_tokens": 200}
    response = server.client.post("/v1/documents/extract", json=body)
    assert response.status_code == 200, response.text
    (document,) = response.json()["data"]
    assert isinstance(document["data"]["number"], str)
    assert isinstance(document["data"]["total"], int | float)
    assert [f["key"] for f in document["fields"]][:2] == ["number", "total"]
    for field in document["fields"]:
        assert 0 < field["model_confidence"] <= 1
        if field["bbox"] is None:
            continue
        left, top, right, bottom = field["bbox"]
        assert 0 <= left < right <= 900
        assert 0 <= top < bottom <= 460
    found = {f["value"] for f in document["fields"] if f["key"].startswith("items") and f["bbox"]}
    assert found == set(document["data"]["items"])


def test_questions_and_labels(server: RunningServer, scan: bytes) -> None:
    images = [base64.b64encode(scan).decode()]
    body = {"images": images, "task": "vqa", "prompts": ["What costs 3.50?"], "max_tokens": 300}
    (item,) = server.client.post("/v1/documents/extract", json=body).json()["data"]
    assert isinstance(item["answer"], str)
    labels = ["invoice", "love letter", "map"]
    body = {"images": images, "task": "classification", "labels": labels}
    (item,) = server.client.post("/v1/documents/extract", json=body).json()["data"]
    scores = item["classification_scores"]
    assert set(scores) == set(labels)
    assert sum(scores.values()) == pytest.approx(1)
    assert item["classification"] == max(scores, key=scores.__getitem__)


def test_mistrals_annotation_is_json_of_the_schema(server: RunningServer, scan: bytes) -> None:
    url = "data:image/png;base64," + base64.b64encode(scan).decode()
    body = {
        "document": {"type": "image_url", "image_url": url},
        "document_annotation_format": {
            "type": "json_schema",
            "json_schema": {"name": "invoice", "schema": SCHEMA},
        },
        "confidence_scores_granularity": "word",
    }
    reply = server.client.post("/v1/ocr", json=body).json()
    assert set(json.loads(reply["document_annotation"])) == {"number", "total", "items"}
    (page,) = reply["pages"]
    for word in page["confidence_scores"]["word_confidence_scores"]:
        assert page["markdown"].startswith(word["text"], word["start_index"])


def test_a_searchable_pdf_of_a_scanned_pdf(server: RunningServer) -> None:
    scanned = scanned_pdf(["First page", "Second page"])
    response = server.client.post(
        "/v1/ocr?format=pdf", content=scanned, headers={"content-type": "application/pdf"}
    )
    assert response.status_code == 200, response.text
    with pypdfium2.PdfDocument(response.content) as document:
        texts = [page.get_textpage().get_text_bounded() for page in document]
        size = document[0].get_size()
    assert texts == ["First page", "Second page"]
    assert size == pytest.approx((595, 842), abs=1)


def test_loaders_of_other_programs(server: RunningServer, scan: bytes) -> None:
    reply = server.client.post("/ocr", files={"file": ("scan.png", scan)}).json()
    assert reply["results"][0]["text"] == TITLE
    headers = {"content-type": "image/png", "x-filename": "scan.png"}
    (page,) = server.client.put("/process", content=scan, headers=headers).json()
    assert page["page_content"].startswith(f"# {TITLE}")
