"""Uploaded files over HTTP: OpenAI's own client, what OCR clients add, and what must not work."""

from __future__ import annotations

import base64
import io
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image
from starlette.testclient import TestClient

from config.settings import AppConfig, FileSettings, LimitSettings
from deployments.ingress.app import make_app
from deployments.ocr import Ocr
from tests.documents import encrypted_pdf, pdf, text_page, tiff
from tests.fakes import FakeReplicas, make_client, make_server, spec
from tests.rendered_pages import encoded

TWO_PAGES = pdf([text_page(["First"]), text_page(["Second"])])
DAY = 86400


@pytest.fixture
def config(tmp_path: Path) -> AppConfig:
    files = FileSettings(max_file_bytes=100_000, max_total_bytes=150_000, max_files=4)
    return AppConfig(data_dir=tmp_path, files=files)


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch, config: AppConfig) -> Iterator[dict[str, Any]]:
    monkeypatch.setattr("deployments.replica.ray.get_gpu_ids", list)
    replica = Ocr([spec("ocr-model", "ocr")], config)
    streams = {"read_document": replica.read_document, "page_images": replica.page_images}
    yield {"ocr": FakeReplicas({"recognize": replica.recognize}, streams)}
    replica.shutdown()


@pytest.fixture
def client(replicas: dict[str, Any], config: AppConfig) -> TestClient:
    return make_client(replicas, config=config)


@pytest.fixture
async def openai_client(
    replicas: dict[str, Any], config: AppConfig
) -> AsyncIterator[openai.AsyncOpenAI]:
    app: Any = make_app(make_server(replicas, config=config))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http:
        yield openai.AsyncOpenAI(
            base_url="http://server/v1", api_key="none", http_client=http, max_retries=0
        )


def upload(client: TestClient, content: bytes, name: str = "a.pdf", **fields: str) -> Any:
    reply = client.post("/v1/files", files={"file": (name, content)}, data=fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_a_files_life_with_openais_client(openai_client: openai.AsyncOpenAI) -> None:
    files = openai_client.files
    created = await files.create(
        file=("report.pdf", TWO_PAGES),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert created.id.startswith("file-")
    assert created.object == "file"
    assert created.status == "processed"
    assert (created.bytes, created.filename) == (len(TWO_PAGES), "report.pdf")
    assert created.expires_at == created.created_at + 3600
    assert (await files.retrieve(created.id)) == created
    assert (await files.content(created.id)).content == TWO_PAGES
    assert [file async for file in files.list()] == [created]
    assert (await files.delete(created.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await files.retrieve(created.id)
    assert [file async for file in files.list()] == []


async def test_openais_client_lists_page_by_page(openai_client: openai.AsyncOpenAI) -> None:
    files = openai_client.files
    purposes: list[Any] = ["batch", "user_data", "user_data", "batch"]
    ids = [(await files.create(file=b"x", purpose=purpose)).id for purpose in purposes]
    listed = [file.id async for file in files.list(limit=1, order="asc")]
    assert sorted(listed) == sorted(ids)
    backwards = [file.id async for file in files.list(limit=3, order="desc")]
    assert backwards == listed[::-1]
    batches = [file.id async for file in files.list(purpose="batch")]
    assert sorted(batches) == sorted([ids[0], ids[3]])


@pytest.mark.parametrize(
    ("content", "kind", "pages"),
    [
        (TWO_PAGES, "application/pdf", 2),
        (tiff([Image.new("L", (9, 9))] * 3), "image/tiff", 3),
        (encoded(Image.new("L", (9, 9))), "image/png", 1),
        (b"a,b\n1,2\n", "application/octet-stream", None),
        (encrypted_pdf("Hidden", "secret"), "application/pdf", None),
        (TWO_PAGES[:200], "application/pdf", None),
        (b"", "application/octet-stream", None),
    ],
)
def test_what_a_file_is_its_bytes_tell(
    client: TestClient, content: bytes, kind: str, pages: int | None
) -> None:
    described = upload(client, content, name="x.docx")
    assert (described["content_type"], described["page_count"]) == (kind, pages)
    assert described["purpose"] == "user_data"
    assert described["expires_at"] == described["created_at"] + 7 * DAY


def test_a_pdf_too_large_for_memory_is_kept_whole(replicas: Any, config: AppConfig) -> None:
    """The upload lies in a file whose descriptor the process that counts pages shares."""
    roomy = FileSettings(max_file_bytes=4 << 20, max_total_bytes=8 << 20, max_files=4)
    client = make_client(replicas, config=config.model_copy(update={"files": roomy}))
    noise = b"%" + random.Random(0).randbytes(2 << 20).hex().encode()
    content = pdf([text_page(["First"]), noise])
    assert len(content) > 1 << 20
    described = upload(client, content)
    assert (described["bytes"], described["page_count"]) == (len(content), 2)
    assert client.get(f"/v1/files/{described['id']}/content").content == content


def test_the_way_of_mistrals_clients(client: TestClient) -> None:
    """Upload, ask for the URL, read it, delete."""
    file_id = upload(client, TWO_PAGES, purpose="ocr")["id"]
    url = client.get(f"/v1/files/{file_id}/url", params={"expiry": "24"}).json()["url"]
    document = {"type": "document_url", "document_url": url}
    reply = client.post("/v1/ocr", json={"document": document}).json()
    assert [page["markdown"] for page in reply["pages"]] == ["First", "Second"]
    assert reply["usage_info"]["doc_size_bytes"] == len(TWO_PAGES)
    assert client.get(url).content == TWO_PAGES
    assert client.delete(f"/v1/files/{file_id}").json() == {
        "id": file_id, "object": "file", "deleted": True,
    }  # fmt: skip
    error = client.post("/v1/ocr", json={"document": document})
    assert error.status_code == 404
    assert error.json()["error"]["param"] == "document.document_url"


def test_files_by_id(client: TestClient) -> None:
    file_id = upload(client, TWO_PAGES)["id"]
    document = {"type": "file", "file_id": file_id}
    reply = client.post("/v1/ocr", json={"document": document, "pages": [1]}).json()
    assert [page["index"] for page in reply["pages"]] == [1]
    predecessor = client.post("/v1/ocr", json={"file_id": file_id}).json()
    assert [item["text"] for item in predecessor["data"]] == ["First", "Second"]
    form = client.post("/v1/ocr", files={"file_id": (None, file_id)}).json()
    assert form == predecessor
    picture = upload(client, encoded(Image.new("L", (20, 10), 0)))["id"]
    document = {"type": "file", "file_id": picture}
    reply = client.post("/v1/ocr", json={"document": document}).json()
    assert reply["pages"][0]["markdown"] == "ink of 20 x 10 pixels"


def test_a_url_of_another_server_is_not_ours(client: TestClient) -> None:
    file_id = upload(client, TWO_PAGES)["id"]
    url = f"http://elsewhere/v1/files/{file_id}/content"
    document = {"type": "document_url", "document_url": url}
    error = client.post("/v1/ocr", json={"document": document})
    assert error.status_code == 400
    assert "turned off" in error.json()["error"]["message"]


def test_pages_as_images(client: TestClient) -> None:
    file_id = upload(client, TWO_PAGES)["id"]
    query = {"pages": "1", "dpi": "72"}
    [page] = client.get(f"/v1/files/{file_id}/images", params=query).json()["data"]
    assert page["index"] == 1
    with Image.open(io.BytesIO(base64.b64decode(page["base64"]))) as image:
        assert (image.format, image.size) == ("PNG", (595, 842))
    assert len(client.get(f"/v1/files/{file_id}/images").json()["data"]) == 2


def test_images_of_more_bytes_than_the_limit(replicas: Any, config: AppConfig) -> None:
    limited = config.model_copy(update={"limits": LimitSettings(max_upload_bytes=1000)})
    client = make_client(replicas, config=limited)
    file_id = upload(client, TWO_PAGES)["id"]
    reply = client.get(f"/v1/files/{file_id}/images")
    assert reply.status_code == 400
    assert "1000 bytes" in reply.json()["error"]["message"]


def test_images_of_more_pages_than_the_limit(replicas: Any, config: AppConfig) -> None:
    limited = config.model_copy(update={"limits": LimitSettings(max_images=1)})
    client = make_client(replicas, config=limited)
    file_id = upload(client, TWO_PAGES)["id"]
    reply = client.get(f"/v1/files/{file_id}/images")
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "pages"


def test_too_large_a_file_leaves_nothing(client: TestClient, tmp_path: Path) -> None:
    for content in (bytes(100_001), bytes(3 << 20)):
        reply = client.post("/v1/files", files={"file": ("x", content)})
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "request_too_large"
    assert list(tmp_path.rglob("*")) == []


def test_a_full_store_says_so(client: TestClient) -> None:
    upload(client, bytes(90_000))
    reply = client.post("/v1/files", files={"file": ("x", bytes(70_000))})
    assert reply.status_code == 507
    assert reply.json()["error"]["code"] == "storage_failed"
    assert len(client.get("/v1/files").json()["data"]) == 1


def test_an_expired_file_is_gone(client: TestClient, tmp_path: Path) -> None:
    file_id = upload(client, b"x")["id"]
    meta = tmp_path / "files" / f"{file_id}.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"expires_at": int(time.time()) - 1}))
    assert client.get(f"/v1/files/{file_id}").status_code == 404
    assert client.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "world domination"}, "purpose"),
        ({"expires_after[anchor]": "tomorrow"}, "anchor"),
        ({"expires_after[seconds]": "1"}, "seconds"),
        ({"expires_after[seconds]": "soon"}, "seconds"),
    ],
)
def test_fields_that_cannot_be(client: TestClient, fields: dict[str, str], param: str) -> None:
    reply = client.post("/v1/files", files={"file": ("x", b"x")}, data=fields)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].endswith(param)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=x", "limit=10001", "order=random", "purpose=none", "after=file-1"],
)
def test_listings_that_cannot_be(client: TestClient, query: str) -> None:
    reply = client.get(f"/v1/files?{query}")
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == query.partition("=")[0]


def test_bodies_that_have_no_file(client: TestClient) -> None:
    assert client.post("/v1/files", json={"file": "x"}).status_code == 415
    assert client.post("/v1/files", data={"file": "x"}).status_code == 415
    for files in ({"other": b"x"}, {"file": (None, "x")}):
        reply = client.post("/v1/files", files=files)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "file")
    two = client.post("/v1/files", files=[("file", b"x"), ("file", b"y")])
    assert two.status_code == 400


NAMES = {
    "../../etc/passwd": "passwd",
    "..\\..\\x": "x",
    "C:\\x.pdf": "x.pdf",
    ";touch x;.png": ";touch x;.png",
    "a\r\nb\0c": "abc",
    "x" * 3000: "x" * 255,
    "..": "..",
    "Ä€.pdf": "Ä€.pdf",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_for_showing(client: TestClient, tmp_path: Path, name: str) -> None:
    described = upload(client, b"x", name=name)
    shown = described["filename"]
    assert "/" not in shown
    assert "\\" not in shown
    assert shown == NAMES[name] or "%" in shown  # what the client's library made of it
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == [described["id"], f"{described['id']}.json"]


def test_content_is_never_a_page_of_this_server(client: TestClient) -> None:
    file_id = upload(client, b"<script>alert(1)</script>", name='a".html')["id"]
    reply = client.get(f"/v1/files/{file_id}/content", headers={"range": "bytes=" + "0-," * 50_000})
    assert (reply.status_code, reply.content) == (200, b"<script>alert(1)</script>")
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == f'attachment; filename="{file_id}"'
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "file_id", ["file-1", "..%2f..%2fetc%2fpasswd", "file-" + "0" * 32, "%00", "*", "file-%0a"]
)
def test_ids_that_are_none(client: TestClient, file_id: str) -> None:
    for suffix in ("", "/content", "/url", "/images"):
        reply = client.get(f"/v1/files/{file_id}{suffix}")
        assert reply.status_code == 404, suffix
        assert set(reply.json()) == {"error"}
    assert client.delete(f"/v1/files/{file_id}").status_code == 404
