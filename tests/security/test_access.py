"""Who gets in: every route of the table, odd spellings, hosts, limits, owners of files."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient
from starlette.types import Message

from config.access import KEYS_VARIABLE, AccessSettings, digest_of
from config.settings import AppConfig
from deployments.ingress.access import key_ring
from deployments.ingress.access.key_ring import KeyRing
from deployments.ingress.app import all_endpoints, make_app
from models.types.common import Usage
from models.types.texts import EmbeddingResult
from tests.fakes import FakeReplicas, make_client, make_server
from tests.security.asgi import assert_error, call

ENDPOINTS = all_endpoints()
KEY = "canary-key-0123456789"
OTHER = "canary-key-9876543210"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "FOO")
SPELLINGS = (
    "//v1/models",
    "/v1/models/",
    "/V1/models",
    "/v1%2fmodels",
    "/v1/../v1/models",
    "/v1/models/../../health",
    "/health/",
    "/health/x",
    "//health",
    "/HEALTH",
    "/%68ealth/../v1/models",
    "/v1/models;/health",
    "/v1/models?/health",
    "/nothing/here",
    "/",
)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def write_keys(path: Path, *entries: dict[str, Any]) -> AppConfig:
    """Settings with these keys and no host names allowed but ours."""
    path.mkdir(exist_ok=True)
    file = path / "keys.yaml"
    file.touch(0o600)
    file.write_text(yaml.safe_dump({"keys": list(entries)}))
    return AppConfig(data_dir=path, access=AccessSettings(keys_file=file))


async def _embed(model_id: str, requests: list[Any]) -> list[EmbeddingResult]:
    import numpy as np

    return [EmbeddingResult(np.ones((1, 2), np.float32), Usage(100)) for _ in requests]


def client_of(config: AppConfig) -> TestClient:
    return make_client({"embedding": FakeReplicas({"embed": _embed})}, config=config)


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return client_of(
        write_keys(tmp_path, {"name": "one", "key": KEY}, {"name": "two", "key": OTHER})
    )


def assert_refused(reply: Any, status: int, code: str) -> None:
    assert reply.status_code == status, reply.text
    assert reply.headers["x-request-id"]
    if reply.request.method == "HEAD":
        return
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json()) == {"error"}
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert reply.json()["error"]["code"] == code


def assert_unauthorized(reply: Any) -> None:
    assert_refused(reply, 401, "invalid_api_key")
    assert reply.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
def test_no_route_is_reached_without_a_key(client: TestClient, endpoint: Any) -> None:
    path = re.sub(r"\{\w+(:path)?\}", "x", endpoint.path)
    if endpoint.path == "/health":
        assert client.get(path).status_code == 200
    else:
        assert_unauthorized(client.request(endpoint.method, path))
        assert_unauthorized(client.request(endpoint.method, path, headers=bearer("x" * 20)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", SPELLINGS)
async def test_nothing_is_learnt_by_odd_paths_and_methods(
    tmp_path: Path, method: str, path: str
) -> None:
    app = make_app(make_server(config=write_keys(tmp_path, {"name": "one", "key": KEY})))
    reply = await call(app, method, path)
    assert_error(reply, 401, "invalid_api_key")
    assert reply.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("method", [m for m in METHODS if m not in {"GET", "HEAD"}])
def test_liveness_is_read_and_no_more(client: TestClient, method: str) -> None:
    assert_unauthorized(client.request(method, "/health"))


def test_liveness_stays_open_whatever_else_is(tmp_path: Path) -> None:
    """`make serve` waits for it, and has no key."""
    keys = write_keys(tmp_path, {"name": "one", "key": KEY}).access.keys_file
    access = AccessSettings(keys_file=keys, open_routes=("/v1/models",))
    client = client_of(AppConfig(data_dir=tmp_path, access=access))
    assert client.get("/health").status_code == 200
    assert client.get("/v1/models").status_code == 200
    assert_unauthorized(client.get("/ready"))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"x-api-key": KEY},
        {"api-key": KEY},
        {"Ocp-Apim-Subscription-Key": KEY},
        {"authorization": "Basic abc", "x-api-key": KEY},
    ],
    ids=str,
)
def test_every_client_has_its_header(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY.upper()}"},
        {"authorization": "Bearer " + "x" * 100_000},
        {"authorization": b"Bearer \xff\xfe\x00"},
        {"authorization": f"Bearer {digest_of(KEY.encode()).hex()}"},
        {"x-api-key": ""},
        {"cookie": f"api-key={KEY}"},
    ],
    ids=lambda headers: str(headers)[:40],
)
def test_what_is_no_key(client: TestClient, headers: dict[str, Any]) -> None:
    assert_unauthorized(client.get("/v1/models", headers=headers))
    assert_unauthorized(client.get(f"/v1/models?api_key={KEY}&key={KEY}", headers=headers))


def test_with_a_key_the_answers_are_the_usual_ones(client: TestClient) -> None:
    client.headers.update(bearer(KEY))
    assert_refused(client.get("/nothing"), 404, "not_found")
    assert_refused(client.put("/v1/models"), 405, "method_not_allowed")
    reply = client.post("/v1/embeddings", json={"model": "embedding-model", "input": "x"})
    assert reply.status_code == 200


def test_an_expired_key_is_none(tmp_path: Path) -> None:
    config = write_keys(tmp_path, {"name": "a", "key": KEY, "expires": "2001-01-01T00:00:00Z"})
    assert_unauthorized(client_of(config).get("/v1/models", headers=bearer(KEY)))


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    assert_unauthorized(client_of(write_keys(tmp_path)).get("/v1/models"))


def test_keys_of_the_environment_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, f"one:{KEY}")
    client = client_of(AppConfig(data_dir=tmp_path))
    assert_unauthorized(client.get("/v1/models"))
    assert client.get("/v1/models", headers=bearer(KEY)).status_code == 200


@pytest.mark.parametrize("allow", ["models", "Models", "/v1/models"])
def test_a_key_may_be_for_some_routes(tmp_path: Path, allow: str) -> None:
    client = client_of(write_keys(tmp_path, {"name": "a", "key": KEY, "allow": [allow]}))
    client.headers.update(bearer(KEY))
    assert client.get("/v1/models").status_code == 200
    for endpoint in ENDPOINTS:
        if endpoint.tag != "models" and endpoint.path != "/health":
            path = re.sub(r"\{\w+\}", "x", endpoint.path)
            assert_refused(client.request(endpoint.method, path), 403, "permission_denied")


def test_a_key_may_be_for_a_route_as_it_is_documented(tmp_path: Path) -> None:
    entry = {"name": "a", "key": KEY, "allow": ["/v1/models/{id}"]}
    client = client_of(write_keys(tmp_path, entry))
    client.headers.update(bearer(KEY))
    assert client.get("/v1/models/embedding-model").status_code == 200
    assert_refused(client.get("/v1/models"), 403, "permission_denied")


def test_requests_per_minute(tmp_path: Path) -> None:
    entry = {"name": "a", "key": KEY, "requests_per_minute": 2}
    client = client_of(write_keys(tmp_path, entry, {"name": "b", "key": OTHER}))
    for _ in range(2):
        assert client.get("/v1/models", headers=bearer(KEY)).status_code == 200
    reply = client.get("/v1/models", headers=bearer(KEY))
    assert_refused(reply, 429, "rate_limit_exceeded")
    assert 1 <= int(reply.headers["retry-after"]) <= 30
    assert client.get("/v1/models", headers=bearer(OTHER)).status_code == 200


def test_tokens_per_minute(tmp_path: Path) -> None:
    client = client_of(write_keys(tmp_path, {"name": "a", "key": KEY, "tokens_per_minute": 150}))
    client.headers.update(bearer(KEY))
    body = {"model": "embedding-model", "input": "x"}
    statuses = [client.post("/v1/embeddings", json=body).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


def test_keys_are_read_again_when_their_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "LOOK_S", 0.0)
    config = write_keys(tmp_path, {"name": "a", "key": KEY})
    client = client_of(config)
    assert client.get("/v1/models", headers=bearer(KEY)).status_code == 200
    write_keys(tmp_path, {"name": "bb", "key": OTHER})
    assert_unauthorized(client.get("/v1/models", headers=bearer(KEY)))
    assert client.get("/v1/models", headers=bearer(OTHER)).status_code == 200
    (tmp_path / "keys.yaml").write_text("keys: [")
    assert client.get("/v1/models", headers=bearer(OTHER)).status_code == 200
    os.remove(tmp_path / "keys.yaml")
    assert client.get("/v1/models", headers=bearer(OTHER)).status_code == 200


def test_keys_are_looked_up_by_digest_and_never_compared(tmp_path: Path) -> None:
    """Whoever presents a key cannot choose its digest: nothing for a clock to tell."""
    config = write_keys(tmp_path, *({"name": f"k{i}", "key": f"{KEY}{i}"} for i in range(5)))
    ring = KeyRing(config.access.keys_file)
    assert set(ring._keys) == {digest_of(f"{KEY}{i}".encode()) for i in range(5)}
    found = [ring.find(f"{KEY}{i}".encode()) for i in range(5)]
    assert [key.name for key in found if key is not None] == [f"k{i}" for i in range(5)]
    for presented in (KEY, f"{KEY}5", "x", "", digest_of(f"{KEY}0".encode()).hex()):
        assert ring.find(presented.encode()) is None


async def test_the_event_loop_does_not_read_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are let in, with the keys that there were, while a large file is parsed."""
    monkeypatch.setattr(key_ring, "LOOK_S", 0.0)
    path = write_keys(tmp_path, {"name": "a", "key": KEY}).access.keys_file
    ring = KeyRing(path)
    write_keys(tmp_path, {"name": "bb", "key": OTHER})
    read, begun, go_on = key_ring.read_keys, threading.Event(), threading.Event()

    def slowly(path: Path) -> Any:
        begun.set()
        assert go_on.wait(60)
        return read(path)

    monkeypatch.setattr(key_ring, "read_keys", slowly)
    reading = asyncio.create_task(ring.refresh())
    assert await asyncio.to_thread(begun.wait, 60)
    await ring.refresh()
    assert ring.find(KEY.encode()) is not None
    go_on.set()
    await reading
    assert ring.find(KEY.encode()) is None
    assert ring.find(OTHER.encode()) is not None


HOSTS = [
    ("localhost", True),
    ("LOCALHOST:8000", True),
    ("app.localhost", True),
    ("127.0.0.1:8000", True),
    ("[::1]:8000", True),
    ("192.168.1.5", True),
    ("api.example.com", True),
    ("API.example.com.:443", True),
    ("evil.example.com", False),
    ("api.example.com.evil.com", False),
    ("localhost.evil.com", False),
    ("127.0.0.1.nip.io", False),
    ("a/health?x=", False),
    ("localhost/health", False),
    ("localhost, evil.com", False),
    ("", False),
    ("[::1", False),
    ("x" * 10_000, False),
]


@pytest.mark.parametrize(("host", "ours"), HOSTS, ids=lambda value: str(value)[:30])
def test_hosts(tmp_path: Path, host: str, ours: bool) -> None:
    access = AccessSettings(allowed_hosts=("Api.example.com",))
    client = client_of(AppConfig(data_dir=tmp_path, access=access))
    for path in ("/v1/models", "/health"):
        reply = client.get(path, headers={"host": host})
        if ours:
            assert reply.status_code == 200
        else:
            assert_refused(reply, 421, "misdirected_request")


def test_a_host_header_does_not_choose_the_path(client: TestClient) -> None:
    for host in ("testserver/health?x=", "a/health?x=", "localhost/health#"):
        assert_unauthorized(client.get("/v1/models", headers={"host": host}))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
def test_no_answer_allows_other_origins(endpoint: Any) -> None:
    client = make_client()
    path = re.sub(r"\{\w+(:path)?\}", "x", endpoint.path)
    asked = {"origin": "http://evil.example", "access-control-request-method": endpoint.method}
    for method in (endpoint.method, "OPTIONS"):
        reply = client.request(method, path, headers=asked)
        assert not [name for name in reply.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("abc-123_x.y", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("a\tb", False),
        ("a b", False),
        ("\x1b[31m", False),
        ("", False),
        ("caf\u00e9", False),
        ("x" * 8192, False),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_request_ids_are_repeated_only_where_they_are_harmless(sent: str, kept: bool) -> None:
    """Serve repeats those that it finds; the application answers with one where there is none."""
    reply = make_client().get("/health", headers={"x-request-id": sent.encode("latin-1")})
    assert ("x-request-id" in reply.headers) is not kept
    if not kept:
        assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["x-request-id"])


async def test_websockets_are_refused(tmp_path: Path) -> None:
    app = make_app(make_server(config=write_keys(tmp_path, {"name": "a", "key": KEY})))
    for extensions, expected in (
        ({"websocket.http.response": {}}, ["websocket.http.response.start"]),
        ({}, ["websocket.close"]),
    ):
        sent: list[Message] = []

        async def send(message: Message, sent: list[Message] = sent) -> None:
            sent.append(message)

        scope = {
            "type": "websocket", "path": "/v1/models", "headers": [], "extensions": extensions,
        }  # fmt: skip
        await app(scope, None, send)  # type: ignore[arg-type]
        assert [message["type"] for message in sent][:1] == expected
        assert sent[0].get("status", 404) == 404


@pytest.fixture
def file_id(client: TestClient) -> str:
    files = {"file": ("a.txt", b"canary content")}
    reply = client.post("/v1/files", files=files, headers=bearer(KEY))
    assert reply.status_code == 200, reply.text
    assert "owner" not in reply.json()
    return str(reply.json()["id"])


def test_a_file_of_one_key_does_not_exist_for_another(client: TestClient, file_id: str) -> None:
    of_files = [e for e in ENDPOINTS if e.path.startswith("/v1/files/{id}")]
    assert len(of_files) >= 5
    for endpoint in of_files:
        path = endpoint.path.replace("{id}", file_id)
        reply = client.request(endpoint.method, path, headers=bearer(OTHER))
        assert_refused(reply, 404, "not_found")
    url = f"http://testserver/v1/files/{file_id}/content"
    for body in (
        {"file_id": file_id},
        {"document": {"type": "file", "file_id": file_id}},
        {"document": {"type": "document_url", "document_url": url}},
    ):
        reply = client.post("/v1/ocr", json=body, headers=bearer(OTHER))
        assert_refused(reply, 404, "not_found")
    assert client.get("/v1/files", headers=bearer(OTHER)).json()["data"] == []
    mine = client.get("/v1/files", headers=bearer(KEY)).json()["data"]
    assert [file["id"] for file in mine] == [file_id]
    content = client.get(f"/v1/files/{file_id}/content", headers=bearer(KEY))
    assert content.content == b"canary content"


def test_keys_are_in_no_answer_and_no_log(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for headers in (bearer(KEY), bearer(KEY + "wrong"), {"x-api-key": KEY}):
        for path in ("/v1/models", "/nothing", "/v1/ocr"):
            reply = client.get(path, headers=headers)
            assert KEY not in reply.text + str(reply.headers)
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("httpx")]
    assert KEY not in " ".join(ours)


async def test_a_look_at_the_file_is_rare(tmp_path: Path) -> None:
    """The clock is asked, not the disk."""
    ring = KeyRing(write_keys(tmp_path, {"name": "a", "key": KEY}).access.keys_file)
    ring._looked = time.monotonic() + 3600
    write_keys(tmp_path, {"name": "bb", "key": OTHER})
    await ring.refresh()
    assert ring.find(KEY.encode()) is not None
