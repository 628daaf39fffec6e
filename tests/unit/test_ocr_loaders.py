"""OCR as LiteParse and Open WebUI call it."""

from __future__ import annotations

from typing import Any

from PIL import Image

from models.types.pages import OcrResult, Page
from tests.fakes import FakeReplicas, make_client
from tests.pages import INVOICE, line, page
from tests.rendered_pages import encoded

PICTURE = encoded(Image.new("RGB", (8, 8), "white"))


def replicas(*pages: Page) -> FakeReplicas:
    async def recognize(model_id: str, requests: list[Any]) -> list[OcrResult]:
        return [OcrResult(pages) for _ in requests]

    return FakeReplicas({"recognize": recognize})


def test_liteparse_gets_lines_with_boxes() -> None:
    fake = replicas(page(line("first", 10, 20), line("second", 10, 50, confidence=0.5)))
    response = make_client({"ocr": fake}).post(
        "/ocr", files={"file": ("page.png", PICTURE)}, data={"language": "de"}
    )
    assert response.status_code == 200, response.text
    assert response.json()["results"] == [
        {
            "text": "first",
            "bbox": [10, 20, 60, 40],
            "confidence": 0.9,
            "polygon": [[10, 20], [60, 20], [60, 40], [10, 40]],
        },
        {
            "text": "second",
            "bbox": [10, 50, 70, 70],
            "confidence": 0.5,
            "polygon": [[10, 50], [70, 50], [70, 70], [10, 70]],
        },
    ]
    ((_, (_, (request,))),) = fake.calls
    assert request.languages == ("de",)


def test_open_webui_gets_pages_of_markdown() -> None:
    headers = {"content-type": "image/png", "x-filename": "invoice.png"}
    client = make_client({"ocr": replicas(INVOICE)})
    (loaded,) = client.put("/process", content=PICTURE, headers=headers).json()
    assert loaded["page_content"].startswith("# Invoice 2024-117\n\n")
    assert loaded["metadata"] == {"source": "invoice.png", "page": 0, "total_pages": 1}


def test_open_webui_is_told_when_there_is_no_text() -> None:
    client = make_client({"ocr": replicas(page())})
    headers = {"content-type": "application/octet-stream"}
    response = client.put("/process", content=PICTURE, headers=headers)
    assert response.status_code == 422
    assert "No extractable text" in response.json()["detail"]
    assert response.json()["error"]["code"] == "no_text"
