"""POST /v1/ocr: what it answers, in Mistral's shape and as files, over pages that are known."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncGenerator
from typing import Any

import pypdfium2
import pytest
from PIL import Image

from models.types.pages import DocumentPage, DocumentRequest, OcrResult, Page, Region
from tests.fakes import FakeReplicas, make_client
from tests.pages import INVOICE, WORDS, line, page
from tests.rendered_pages import encoded

PICTURE = encoded(Image.new("RGB", (800, 1000), "white"))
DOCUMENT = {
    "type": "image_url",
    "image_url": "data:image/png;base64," + base64.b64encode(PICTURE).decode(),
}
CORNERS = ("top_left_x", "top_left_y", "bottom_right_x", "bottom_right_y")


def replicas(*pages: Page) -> FakeReplicas:
    async def recognize(model_id: str, requests: list[Any]) -> list[OcrResult]:
        return [OcrResult(pages[: len(request.images)]) for request in requests]

    async def page_images(request: DocumentRequest) -> AsyncGenerator[tuple[int, bytes]]:
        yield 0, PICTURE

    return FakeReplicas({"recognize": recognize}, {"page_images": page_images})


def ask(*pages: Page, query: str = "", **fields: Any) -> Any:
    client = make_client({"ocr": replicas(*pages)})
    return client.post(f"/v1/ocr{query}", json={"document": DOCUMENT} | fields)


def read(page: Page, **fields: Any) -> dict[str, Any]:
    response = ask(page, **fields)
    assert response.status_code == 200, response.text
    (reply,) = response.json()["pages"]
    return dict(reply)


def test_a_page_has_all_fields_of_mistrals_shape() -> None:
    reply = ask(INVOICE).json()
    assert set(reply) == {"pages", "model", "usage_info", "document_annotation"}
    (page,) = reply["pages"]
    assert page["markdown"].startswith("# Invoice 2024-117\n\nMiller & Sons")
    assert "| Coffee |  | 3.50 |" in page["markdown"]
    assert page["dimensions"] == {"dpi": 72, "height": 1000, "width": 800}
    empty = ("images", "tables", "hyperlinks")
    assert [page[name] for name in empty] == [[], [], []]
    absent = ("header", "footer", "blocks", "confidence_scores")
    assert [page[name] for name in absent] == [None] * 4


@pytest.mark.parametrize(
    ("form", "name", "begins"),
    [("markdown", "tbl-0.md", "| Item | Count"), ("html", "tbl-0.html", "<table><tr><td>Item")],
)
def test_tables_are_put_beside_the_markdown(form: str, name: str, begins: str) -> None:
    page = read(INVOICE, table_format=form, include_blocks=True)
    (table,) = page["tables"]
    assert (table["id"], table["format"]) == (name, form)
    assert table["content"].startswith(begins)
    assert f"\n\n[{name}]({name})\n\n" in page["markdown"]
    assert "Coffee" not in page["markdown"]
    assert [block.get("table_id") for block in page["blocks"]] == [None, None, name, None]


def test_tables_are_numbered_through_the_pages() -> None:
    async def read_document(model_id: str, request: Any) -> AsyncGenerator[DocumentPage]:
        for index in range(2):
            yield DocumentPage(index, INVOICE, 150)

    fake = FakeReplicas(streams={"read_document": read_document})
    body = {"document": DOCUMENT, "pages": [0, 1], "table_format": "html"}
    pages = make_client({"ocr": fake}).post("/v1/ocr", json=body).json()["pages"]
    assert [page["tables"][0]["id"] for page in pages] == ["tbl-0.html", "tbl-1.html"]
    assert [page["dimensions"]["dpi"] for page in pages] == [150, 150]


def test_blocks_have_types_and_boxes_in_reading_order() -> None:
    blocks = read(INVOICE, include_blocks=True)["blocks"]
    assert [block["type"] for block in blocks] == ["title", "text", "table", "list"]
    assert [blocks[1][corner] for corner in CORNERS] == [50, 170, 290, 215]
    assert blocks[0]["content"] == "# Invoice 2024-117"
    assert "confidence_scores" not in blocks[0]


def test_scores_of_pages_words_and_blocks() -> None:
    scores = read(page(WORDS), confidence_scores_granularity="page")["confidence_scores"]
    assert scores == {
        "average_page_confidence_score": pytest.approx(0.8),
        "minimum_page_confidence_score": 0.7,
    }
    by_word = read(INVOICE, confidence_scores_granularity="word")
    words = by_word["confidence_scores"]["word_confidence_scores"]
    assert len(words) == sum(len(line.text.split()) for line in INVOICE.lines)
    for word in words:
        if "|" not in word["text"]:
            assert by_word["markdown"].startswith(word["text"], word["start_index"])
    by_block = read(page(WORDS), confidence_scores_granularity="block")
    assert by_block["blocks"][0]["confidence_scores"] == {
        "average_content_confidence_score": pytest.approx(0.8),
        "minimum_content_confidence_score": 0.7,
        "block_type_confidence_score": None,
    }
    assert read(page(), confidence_scores_granularity="page")["confidence_scores"] is None


def test_heads_and_feet_leave_the_markdown_when_asked_for() -> None:
    made = page(line("Annual report", 50, 10), *INVOICE.lines, line("Page 17", 400, 970))
    whole = read(made)
    assert whole["markdown"].startswith("Annual report")
    assert (whole["header"], whole["footer"]) == (None, None)
    apart = read(made, extract_header=True, extract_footer=True)
    assert (apart["header"], apart["footer"]) == ("Annual report", "Page 17")
    assert apart["markdown"] == read(INVOICE)["markdown"]
    half = read(made, extract_footer=True)
    assert half["markdown"].startswith("Annual report")


def test_links_are_listed_once() -> None:
    made = page(
        line("See https://a.example/x?y=1, and (https://b.example/).", 0, 0),
        line("Again https://a.example/x?y=1.", 0, 25),
    )
    assert read(made)["hyperlinks"] == ["https://a.example/x?y=1", "https://b.example/"]


@pytest.mark.parametrize(
    ("form", "media_type", "begins"),
    [
        ("text", "text/plain; charset=utf-8", "Invoice 2024-117\n"),
        ("markdown", "text/markdown; charset=utf-8", "# Invoice 2024-117\n"),
        ("hocr", "application/xhtml+xml; charset=utf-8", "<?xml"),
        ("alto", "application/xml; charset=utf-8", "<?xml"),
        ("tsv", "text/tab-separated-values; charset=utf-8", "level\tpage_num\t"),
    ],
)
@pytest.mark.parametrize("in_query", [True, False])
def test_files_of_text(form: str, media_type: str, begins: str, in_query: bool) -> None:
    response = ask(INVOICE, query=f"?format={form}") if in_query else ask(INVOICE, format=form)
    assert response.status_code == 200
    assert response.headers["content-type"] == media_type
    assert response.text.startswith(begins)
    assert "117" in response.text


def test_a_searchable_pdf() -> None:
    response = ask(INVOICE, format="pdf")
    assert response.headers["content-type"] == "application/pdf"
    with pypdfium2.PdfDocument(response.content) as document:
        assert len(document) == 1
        text = document[0].get_textpage().get_text_bounded()
    assert "Invoice 2024-117" in text
    assert "of <good> repute." in text


def test_pages_of_plain_text_are_parted_by_form_feeds() -> None:
    client = make_client({"ocr": replicas(page(line("one", 0, 0)), page(line("two", 0, 0)))})
    images = [base64.b64encode(PICTURE).decode()] * 2
    response = client.post("/v1/ocr", json={"images": images, "format": "text"})
    assert response.text == "one\n\ftwo\n"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"format": "docx"}, "format"),
        ({"table_format": "latex"}, "table_format"),
        ({"confidence_scores_granularity": "letter"}, "confidence_scores_granularity"),
        ({"bbox_annotation_format": {"type": "text"}}, "bbox_annotation_format"),
        ({"image_limit": -1}, "image_limit"),
        ({"format": "pdf", "stream": True}, "stream"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    response = ask(INVOICE, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_an_unknown_format_in_the_query_is_refused() -> None:
    response = ask(INVOICE, query="?format=docx")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "format"


def test_streams_have_the_same_pages() -> None:
    response = ask(INVOICE, stream=True, include_blocks=True)
    events = [text.removeprefix("data: ") for text in response.text.split("\n\n") if text]
    assert json.loads(events[0]) == read(INVOICE, include_blocks=True)


FIGURES = Page(
    800,
    1000,
    (line("Figure 1", 50, 520),),
    regions=(Region("figure", 0.9, (50, 100, 450, 500)), Region("figure", 0.8, (50, 600, 90, 630))),
)


@pytest.mark.parametrize("stream", [False, True])
def test_pictures_are_cut_out_of_the_page(stream: bool) -> None:
    response = ask(FIGURES, include_image_base64=True, image_min_size=100, stream=stream)
    text = response.text.split("\n\n")[0].removeprefix("data: ")
    page = json.loads(text) if stream else json.loads(text)["pages"][0]
    (image,) = page["images"]
    assert [image[corner] for corner in CORNERS] == [50, 100, 450, 500]
    assert page["markdown"].startswith("![img-0.jpeg](img-0.jpeg)\n\nFigure 1")
    head, _, data = image["image_base64"].partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as crop:
        assert (crop.format, crop.size) == ("JPEG", (400, 400))


def test_pictures_are_named_but_not_cut_unless_asked_for() -> None:
    page = read(FIGURES, image_limit=1, include_blocks=True)
    assert [(image["id"], image["image_base64"]) for image in page["images"]] == [
        ("img-0.jpeg", None)
    ]
    assert [block.get("image_id") for block in page["blocks"]] == ["img-0.jpeg", None, None]
    assert read(FIGURES, image_limit=0)["images"] == []


def test_pictures_of_several_documents_are_refused() -> None:
    client = make_client({"ocr": replicas()})
    images = [base64.b64encode(PICTURE).decode()] * 2
    response = client.post("/v1/ocr", json={"images": images, "include_image_base64": True})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "include_image_base64"
