"""Mistral's own client: upload, URL, OCR, delete; on the toy engine."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mistralai.client import Mistral
from PIL import Image

from config.settings import AppConfig
from deployments.ocr import Ocr
from tests.documents import pdf, text_page
from tests.fakes import FakeReplicas, make_client, spec
from tests.rendered_pages import encoded

TWO_PAGES = pdf([text_page(["First"]), text_page(["Second"])])


@pytest.fixture
def mistral(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mistral]:
    monkeypatch.setattr("deployments.replica.ray.get_gpu_ids", list)
    config = AppConfig(data_dir=tmp_path)
    replica = Ocr([spec("ocr-model", "ocr")], config)
    streams = {"read_document": replica.read_document, "page_images": replica.page_images}
    replicas = FakeReplicas({"recognize": replica.recognize}, streams)
    http: Any = make_client({"ocr": replicas}, config=config)
    yield Mistral(api_key="none", server_url="http://testserver", client=http)
    replica.shutdown()


def test_the_way_of_a_file(mistral: Mistral) -> None:
    file: Any = {"file_name": "report.pdf", "content": TWO_PAGES}
    uploaded = mistral.files.upload(file=file, purpose="ocr")
    assert uploaded.size_bytes == len(TWO_PAGES)
    assert mistral.files.retrieve(file_id=uploaded.id).filename == "report.pdf"
    assert [entry.id for entry in mistral.files.list().data] == [uploaded.id]
    url = mistral.files.get_signed_url(file_id=uploaded.id).url
    documents: list[Any] = [
        {"type": "document_url", "document_url": url},
        {"type": "file", "file_id": uploaded.id},
    ]
    for document in documents:
        reply = mistral.ocr.process(model="ocr-model", document=document, pages=[0, 1])
        assert [page.markdown for page in reply.pages] == ["First", "Second"]
        assert reply.usage_info.doc_size_bytes == len(TWO_PAGES)
    assert mistral.files.download(file_id=uploaded.id).read() == TWO_PAGES
    assert mistral.files.delete(file_id=uploaded.id).deleted
    assert mistral.files.list().data == []


def test_an_image(mistral: Mistral) -> None:
    image = base64.b64encode(encoded(Image.new("L", (20, 10), 0))).decode()
    document: Any = {"type": "image_url", "image_url": f"data:image/png;base64,{image}"}
    [page] = mistral.ocr.process(model="ocr-model", document=document).pages
    assert page.markdown == "ink of 20 x 10 pixels"
    assert page.dimensions is not None
    assert (page.dimensions.width, page.dimensions.height) == (20, 10)
