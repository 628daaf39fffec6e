"""PDF files, uploads and streams of pages on the real graph."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import psutil
import pytest

from tests.documents import encrypted_pdf, pdf, picture_of, scanned_pdf, text_page, tiff
from tests.integration.conftest import RunningServer
from tests.rendered_pages import encoded

PATIENCE_S = 60
LINES = ["The quick brown fox", "jumps over the lazy dog"]
MIXED = pdf([text_page(LINES), b"1 0 0 rg 0 0 50 50 re f", text_page(["The third page"])])
HOSTILE = {
    "huge page": pdf([b""], box="0 0 14400 14400"),
    "endless page": pdf([b"q 1 0 0 1 0 0 cm 0 0 m 500 800 l S Q\n" * 3_000_000]),
    "cut": MIXED[:300],
    "html": b"%PDF-1.7\n<html></html>",
    "script": pdf([b""], catalog="/OpenAction<</S/JavaScript/JS(1)>>"),
    "encrypted": encrypted_pdf("Hidden", "secret"),
    "empty": b"",
}


def read(server: RunningServer, content: bytes, **fields: str) -> Any:
    files = {"file": ("document", content)}
    return server.client.post("/v1/ocr", files=files, data=fields)


def test_pages_with_and_without_text(server: RunningServer) -> None:
    reply = read(server, MIXED)
    assert reply.status_code == 200, reply.text
    pages = reply.json()["pages"]
    assert [page["source"] for page in pages] == ["text_layer", "ocr", "text_layer"]
    assert pages[0]["markdown"] == "\n".join(LINES)
    recognised = read(server, MIXED, pages="0", force_ocr="true").json()["pages"][0]
    assert recognised["source"] == "ocr"
    assert recognised["markdown"] == pages[0]["markdown"]
    for own, seen in zip(pages[0]["lines"], recognised["lines"], strict=True):
        (left, top), (right, _), (_, bottom), _ = own["polygon"]
        x, y = (sum(values) / 4 for values in zip(*seen["polygon"], strict=True))
        assert abs(x - (left + right) / 2) < 15
        assert top < y < bottom


def test_scans_and_frames(server: RunningServer) -> None:
    texts = ["Invoice 2041", "Total 128 EUR"]
    for content in (scanned_pdf(texts), tiff([picture_of(text) for text in texts])):
        pages = read(server, content).json()["pages"]
        assert [page["markdown"] for page in pages] == texts


def test_thirty_pages_arrive_one_by_one(server: RunningServer) -> None:
    content = pdf([text_page([f"Page number {index}"]) for index in range(30)])
    files = {"file": ("document", content)}
    data = {"stream": "true", "pages": "0-29"}
    with server.client.stream("POST", "/v1/ocr", files=files, data=data) as reply:
        events = [line for line in reply.iter_lines() if line]
    *pages, end = (json.loads(event[6:]) for event in events[:-1])
    assert [page["markdown"] for page in pages] == [f"Page number {i}" for i in range(30)]
    assert end["usage_info"] == {"pages_processed": 30, "doc_size_bytes": len(content)}
    assert events[-1] == "data: [DONE]"


def rendering(server: RunningServer) -> list[psutil.Process]:
    return server.running("pdf_child.py")


def await_rendering(server: RunningServer) -> None:
    """A list of processes that is read while others come and go may lack one."""
    deadline = time.monotonic() + PATIENCE_S
    while len(rendering(server)) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_client_that_leaves_ends_the_rendering(server: RunningServer) -> None:
    content = scanned_pdf([f"Page number {index}" for index in range(100)])
    files = {"file": ("document", content)}
    with server.client.stream("POST", "/v1/ocr", files=files, data={"stream": "true"}) as reply:
        lines = reply.iter_lines()  # as long as it is held, so is the connection
        first = next(filter(None, lines))
        assert json.loads(first[6:])["markdown"] == "Page number 0"
        await_rendering(server)
    deadline = time.monotonic() + PATIENCE_S
    while rendering(server):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert read(server, MIXED, pages="2").status_code == 200


def test_images_are_read_while_hostile_documents_are(server: RunningServer) -> None:
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(read, server, HOSTILE["endless page"]) for _ in range(4)]
        image = encoded(picture_of("Still here", (400, 200)))
        while not all(request.done() for request in waiting):
            [page] = read(server, image).json()["pages"]
            assert page["markdown"] == "Still here"
        assert [request.result().status_code for request in waiting] == [400] * 4


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents_are_refused_and_the_next_is_read(
    server: RunningServer, name: str
) -> None:
    reply = read(server, HOSTILE[name])
    assert reply.status_code == 400, reply.text
    assert set(reply.json()) == {"error"}
    assert read(server, MIXED, pages="2").json()["pages"][0]["markdown"] == "The third page"


def test_an_uploaded_file_is_read_by_the_replica(server: RunningServer) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    file = client.files.create(file=("a.pdf", MIXED), purpose="user_data")
    assert file.page_count == 3  # type: ignore[attr-defined]
    document = {"type": "file", "file_id": file.id}
    reply = server.client.post("/v1/ocr", json={"document": document, "pages": [2]})
    assert reply.json()["pages"][0]["markdown"] == "The third page"
    images = server.client.get(f"/v1/files/{file.id}/images?pages=0&dpi=36").json()["data"]
    assert len(images) == 1
    assert client.files.content(file.id).read() == MIXED
    assert client.files.delete(file.id).deleted
    assert server.client.get(f"/v1/files/{file.id}").status_code == 404
