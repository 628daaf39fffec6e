"""Documents over HTTP: the application, the real deployment class, the toy engine; without Ray."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from config.settings import AppConfig, DocumentSettings, LimitSettings, OcrSettings
from deployments.ocr import Ocr
from models.errors import OverloadedError
from models.types.pages import DocumentPage, DocumentRequest, Page
from tests.documents import encrypted_pdf, pdf, picture_of, scanned_pdf, text_page, tiff
from tests.fakes import FakeReplicas, make_client, spec
from tests.rendered_pages import encoded

MODEL = "ocr-model"
LEAK = re.compile(r"0x[0-9a-f]{6,}| object at |Traceback|File \"|/tmp|/home|/work|site-packages")
MIXED = pdf([text_page(["First page"]), b"0 0 0 rg 100 100 50 30 re f", text_page(["Third"])])
SQUARE = encoded(Image.new("L", (20, 10), 0))


def config_of(tmp_path: Path, **settings: Any) -> AppConfig:
    documents = DocumentSettings(dpi=72, max_pages=40, max_page_pixels=1_000_000, page_s=10)
    return AppConfig(**{"data_dir": tmp_path, "documents": documents, **settings})


def connect(replica: Ocr, config: AppConfig) -> TestClient:
    streams = {"read_document": replica.read_document, "page_images": replica.page_images}
    replicas = FakeReplicas({"recognize": replica.recognize}, streams)
    return make_client({"ocr": replicas}, config=config)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[TestClient]:
    monkeypatch.setattr("deployments.replica.ray.get_gpu_ids", list)
    config = config_of(tmp_path)
    replica = Ocr([spec(MODEL, "ocr")], config)
    yield connect(replica, config)
    replica.shutdown()


def data_uri(data: bytes) -> str:
    return f"data:;base64,{base64.b64encode(data).decode()}"


def read(client: TestClient, data: bytes, **fields: Any) -> Any:
    document = {"type": "document_url", "document_url": data_uri(data)}
    reply = client.post("/v1/ocr", json={"document": document, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


def refused(reply: Any, status: int = 400) -> Any:
    assert reply.status_code == status, reply.text
    assert not LEAK.search(reply.text)
    assert set(reply.json()) == {"error"}
    return reply.json()["error"]


def test_a_pdf_in_mistrals_shape(client: TestClient) -> None:
    reply = read(client, MIXED)
    assert reply["usage_info"] == {"pages_processed": 3, "doc_size_bytes": len(MIXED)}
    pages = [(page["index"], page["source"], page["markdown"]) for page in reply["pages"]]
    assert pages == [
        (0, "text_layer", "First page"),
        (1, "ocr", "ink of 50 x 30 pixels"),
        (2, "text_layer", "Third"),
    ]
    assert reply["pages"][1]["dimensions"] == {"dpi": 72, "height": 842, "width": 595}
    assert reply["pages"][1]["lines"][0]["polygon"][0] == [100, 842 - 130]


@pytest.mark.parametrize("pages", [[2, 0], "2,0"])
def test_pages_can_be_chosen(client: TestClient, pages: Any) -> None:
    assert [page["index"] for page in read(client, MIXED, pages=pages)["pages"]] == [2, 0]
    assert [page["index"] for page in read(client, MIXED, pages="1-9")["pages"]] == [1, 2]


def test_resolution_and_force(client: TestClient) -> None:
    reply = read(client, MIXED, dpi=36, force_ocr=True, pages=[0, 1])
    assert [page["source"] for page in reply["pages"]] == ["ocr", "ocr"]
    assert re.fullmatch("ink of 2[56] x 15 pixels", reply["pages"][1]["markdown"])
    assert reply["pages"][1]["dimensions"] == {"dpi": 36, "height": 421, "width": 298}


def test_a_password(client: TestClient) -> None:
    data = encrypted_pdf("Hidden", "secret")
    assert read(client, data, password="secret")["pages"][0]["markdown"] == "Hidden"
    document = {"type": "document_url", "document_url": data_uri(data)}
    error = refused(client.post("/v1/ocr", json={"document": document}))
    assert error["param"] == "password"


def test_all_frames_of_a_tiff_and_the_first_of_a_gif(client: TestClient) -> None:
    frames = [picture_of("a", (100, 100)), Image.new("RGB", (30, 40), "white")]
    sizes = [page["dimensions"] for page in read(client, tiff(frames))["pages"]]
    assert [(size["width"], size["height"]) for size in sizes] == [(100, 100), (30, 40)]
    gif = encoded(frames[1], "GIF", save_all=True, append_images=[frames[1].rotate(90)])
    assert len(read(client, gif)["pages"]) == 1


def test_a_scan_is_recognised(client: TestClient) -> None:
    pages = read(client, scanned_pdf(["one", "two"]))["pages"]
    assert [page["source"] for page in pages] == ["ocr", "ocr"]


@pytest.mark.parametrize("field", ["file", "image", "document"])
def test_a_form(client: TestClient, field: str) -> None:
    form = {"pages": "0-1", "dpi": "36", "force_ocr": "true", "model": MODEL}
    reply = client.post("/v1/ocr", files={field: ("x.bin", MIXED)}, data=form).json()
    assert [page["index"] for page in reply["pages"]] == [0, 1]
    assert reply["pages"][0]["source"] == "ocr"
    assert reply["pages"][0]["dimensions"]["dpi"] == 36


def test_a_form_of_images_in_the_predecessors_shape(client: TestClient) -> None:
    files = [("images", ("a.png", SQUARE)), ("images", ("b.pdf", MIXED)), ("images", SQUARE)]
    data = {"return_boxes": "true"}
    reply = client.post("/v1/ocr", files=files, data=data).json()
    assert [item["index"] for item in reply["data"]] == [0, 1, 2, 3, 4]
    texts = [item["text"] for item in reply["data"]]
    assert texts[:2] == ["ink of 20 x 10 pixels", "First page"]
    assert texts[4] == "ink of 20 x 10 pixels"
    assert reply["usage"] == {"images_processed": 5}
    assert len(reply["data"][0]["boxes"]) == 1


@pytest.mark.parametrize(
    "kind", ["application/pdf", "image/png", "application/octet-stream", "image/x-whatever"]
)
def test_the_file_itself_as_body(client: TestClient, kind: str) -> None:
    """What it is its bytes tell."""
    headers = {"content-type": kind}
    reply = client.post("/v1/ocr?pages=2&force_ocr=false", content=MIXED, headers=headers).json()
    assert [page["markdown"] for page in reply["pages"]] == ["Third"]


def test_the_predecessors_path(client: TestClient) -> None:
    body = {"images": [base64.b64encode(SQUARE).decode()]}
    assert client.post("/v1/vision/ocr", json=body).json()["data"][0]["text"]


def events(reply: Any) -> list[Any]:
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in reply.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def test_a_stream_is_the_whole_answer_in_pieces(client: TestClient) -> None:
    whole = read(client, MIXED)
    document = {"type": "document_url", "document_url": data_uri(MIXED)}
    reply = client.post("/v1/ocr", json={"document": document, "stream": True})
    *pages, end = events(reply)
    assert pages == whole["pages"]
    assert end == {"model": MODEL, "usage_info": whole["usage_info"]}
    images = {"images": [base64.b64encode(SQUARE).decode()] * 2, "stream": True}
    *texts, end = events(client.post("/v1/ocr", json=images))
    assert [item["index"] for item in texts] == [0, 1]
    assert end == {"model": MODEL, "usage": {"images_processed": 2}}


def test_what_fails_before_the_first_page_is_no_stream(client: TestClient) -> None:
    files = {"file": pdf([])}
    assert refused(client.post("/v1/ocr", files=files, data={"stream": "true"}))["param"] == "file"


def test_what_fails_later_ends_the_stream_with_an_event() -> None:
    async def read_document(*_: Any) -> Any:
        yield DocumentPage(0, Page(1, 1, ()), 72)
        raise OverloadedError("Too many pages are waiting.")

    client = make_client({"ocr": FakeReplicas(streams={"read_document": read_document})})
    reply = client.post("/v1/ocr", files={"file": MIXED}, data={"stream": "true"})
    first, last = (json.loads(line[6:]) for line in reply.text.split("\n\n") if line)
    assert first["index"] == 0
    assert last["error"]["code"] == "rate_limit_exceeded"


def test_the_deadline_of_a_document() -> None:
    async def read_document(*_: Any) -> Any:
        await asyncio.Event().wait()
        yield None

    config = AppConfig().model_copy(
        update={"deadlines": AppConfig().deadlines.model_copy(update={"document_s": 0.01})}
    )
    replicas = FakeReplicas(streams={"read_document": read_document})
    reply = make_client({"ocr": replicas}, config=config).post("/v1/ocr", files={"file": MIXED})
    assert refused(reply, 504)["code"] == "deadline_exceeded"


async def test_who_leaves_ends_the_reading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Closing the stream of pages kills the process that renders, within the page."""
    monkeypatch.setattr("deployments.replica.ray.get_gpu_ids", list)
    replica = Ocr([spec(MODEL, "ocr")], config_of(tmp_path))
    opened: list[Any] = []
    open_document = replica._open

    def remembered(*args: Any) -> Any:
        opened.append(open_document(*args))
        return opened[0]

    monkeypatch.setattr(replica, "_open", remembered)
    pages = replica.read_document(MODEL, DocumentRequest(MIXED, 72))
    assert (await anext(pages)).index == 0
    process = opened[0]._pdf._child._process
    assert process.poll() is None
    await pages.aclose()
    assert process.poll() is not None
    assert replica._open_documents._value == AppConfig().documents.max_open
    replica.shutdown()


BODIES: dict[str, tuple[dict[str, Any], str]] = {
    "no such page": ({"pages": [9]}, "pages"),
    "a negative page": ({"pages": [-1]}, "pages"),
    "no range": ({"pages": "a-b"}, "pages"),
    "a range backwards": ({"pages": "3-1"}, "pages"),
    "a huge range": ({"pages": "0-" + "9" * 50}, "pages"),
    "no pages": ({"pages": []}, "pages"),
    "too fine": ({"dpi": 401}, "dpi"),
    "too coarse": ({"dpi": 1}, "dpi"),
    "a text": ({"dpi": "150"}, "dpi"),
    "too many pixels": ({"dpi": 200, "force_ocr": True}, "document.document_url"),
}


@pytest.mark.parametrize("name", BODIES)
def test_options_that_cannot_be(client: TestClient, name: str) -> None:
    fields, param = BODIES[name]
    document = {"type": "document_url", "document_url": data_uri(MIXED)}
    error = refused(client.post("/v1/ocr", json={"document": document, **fields}))
    assert error["param"].startswith(param)


DOCUMENTS: dict[str, dict[str, Any]] = {
    "remote": {"type": "document_url", "document_url": "http://127.0.0.1:1/x.pdf"},
    "file": {"type": "document_url", "document_url": "file:///etc/passwd"},
    "not base64": {"type": "document_url", "document_url": "data:application/pdf,raw"},
    "bad base64": {"type": "image_url", "image_url": "data:;base64,????"},
    "plain base64": {"type": "image_url", "image_url": "QUJD"},
    "nothing": {"type": "image_url"},
    "no id": {"type": "file"},
    "another type": {"type": "text", "text": "x"},
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_that_are_none(client: TestClient, name: str) -> None:
    error = refused(client.post("/v1/ocr", json={"document": DOCUMENTS[name]}))
    assert error["param"].startswith("document")


def test_remote_urls_where_they_are_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[tuple[str, str, int]] = []

    async def fetch(remote: Any, url: str, param: str) -> bytes:
        fetched.append((url, param, remote._max_bytes))
        return SQUARE

    monkeypatch.setattr("deployments.ingress.remote_files.RemoteFiles.fetch", fetch)
    monkeypatch.setattr("deployments.replica.ray.get_gpu_ids", list)
    config = config_of(tmp_path, ocr=OcrSettings(allow_remote_urls=True))
    replica = Ocr([spec(MODEL, "ocr")], config)
    document = {"type": "image_url", "image_url": "https://example.com/a.png"}
    reply = connect(replica, config).post("/v1/ocr", json={"document": document})
    assert reply.json()["pages"][0]["markdown"] == "ink of 20 x 10 pixels"
    assert fetched == [
        ("https://example.com/a.png", "document.image_url", config.limits.max_upload_bytes)
    ]
    replica.shutdown()


def test_what_was_sent_is_bounded_before_it_is_decoded(tmp_path: Path) -> None:
    limits = LimitSettings(max_upload_bytes=5000, max_images=2)
    client = make_client(config=config_of(tmp_path, limits=limits))
    big = bytes(6000)
    refused(client.post("/v1/ocr", files={"file": big}), 413)
    headers = {"content-type": "application/pdf"}
    refused(client.post("/v1/ocr", content=big, headers=headers), 413)
    refused(client.post("/v1/ocr", content=iter([big]), headers=headers), 413)
    refused(
        client.post("/v1/ocr", content=big, headers=headers | {"content-encoding": "gzip"}), 415
    )
    assert refused(client.post("/v1/ocr", json={"images": ["%"] * 3}))["param"] == "images"
    refused(client.post("/v1/ocr", files=[("images", b"x")] * 3))
    refused(client.post("/v1/ocr", data={"file": "x"}, files={"other": b"x"}))
    refused(client.post("/v1/ocr", content=b"x", headers={"content-type": "text/html"}), 415)


FORMS = {
    "no boundary": ("multipart/form-data", b""),
    "a long boundary": (f"multipart/form-data; boundary={'b' * 5000}", b""),
    "many parts": ("multipart/form-data; boundary=b",
                   b"--b\r\ncontent-disposition: form-data; name=x\r\n\r\n1\r\n" * 10_000),
    "many headers": ("multipart/form-data; boundary=b", b"--b\r\n" + b"a: b\r\n" * 10_000),
    "a long header": ("multipart/form-data; boundary=b", b"--b\r\na: " + b"b" * 100_000),
    "junk before": ("multipart/form-data; boundary=b", b"\r\n" * 500_000),
    "no name": ("multipart/form-data; boundary=b",
                b"--b\r\ncontent-disposition: form-data\r\n\r\n1\r\n--b--\r\n"),
    "a large field": ("multipart/form-data; boundary=b",
                      b'--b\r\ncontent-disposition: form-data; name="x"\r\n\r\n' + bytes(2 << 20)),
    "cut": ("multipart/form-data; boundary=b",
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n' + MIXED),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_are_none(client: TestClient, name: str) -> None:
    kind, content = FORMS[name]
    reply = client.post("/v1/ocr", content=content, headers={"content-type": kind})
    assert reply.status_code in {400, 413}, reply.text
    assert not LEAK.search(reply.text)
    assert client.post("/v1/ocr", files={"file": SQUARE}).status_code == 200


NAMES = [
    ";touch x;.png",
    "../../x",
    "..\\..\\x",
    "C:\\x",
    "con",
    "-rf",
    "a\0b",
    "x" * 2000,
    "'`$(x)",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_mean_nothing(client: TestClient, name: str) -> None:
    plain = client.post("/v1/ocr", files={"file": ("a.png", SQUARE)})
    assert client.post("/v1/ocr", files={"file": (name, SQUARE)}).json() == plain.json()


async def test_pictures_of_a_document_can_be_had_while_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("deployments.replica.ray.get_gpu_ids", list)
    config = config_of(tmp_path, documents=DocumentSettings(dpi=72, max_open=1, pages_in_flight=1))
    replica = Ocr([spec(MODEL, "ocr")], config)
    request = DocumentRequest(MIXED, 72)
    async with asyncio.timeout(60), aclosing(replica.read_document(MODEL, request)) as pages:
        assert (await anext(pages)).index == 0
        async with aclosing(replica.page_images(request)) as pictures:
            assert [number async for number, _ in pictures] == [0, 1, 2]
    await asyncio.to_thread(replica.shutdown)
