"""The error contract, on every route of the table: the wire format, a request id, no leaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from starlette.testclient import TestClient
from starlette.types import Message

from config.settings import AppConfig, DeadlineSettings, LimitSettings
from deployments.ingress.app import all_endpoints, make_app
from deployments.ingress.errors import ANSWERS, describe
from models import errors
from models.errors import (
    InputTooLongError,
    InvalidInputError,
    LoadTimeoutError,
    MemoryRefusedError,
    ModelError,
    ModelLoadError,
    OverloadedError,
    ReplicaLostError,
    StorageError,
)
from models.types.common import Usage
from models.types.generation import ChoiceDelta, Delivery, TextDelta
from tests.fakes import FakeReplicas, make_client, make_server
from tests.security.samples import SAMPLES

ENDPOINTS = all_endpoints()
WITH_BODY = [endpoint for endpoint in ENDPOINTS if endpoint.body is not None]
WITH_JSON = [endpoint for endpoint in WITH_BODY if "application/json" in endpoint.media_types]
EMBED = {"model": "embedding-model", "input": "text"}


def assert_error(response: Any, status: int, code: str | None = None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    if code is not None:
        assert error["code"] == code
    return error


def failing(error: Exception) -> TestClient:
    async def embed(model_id: str, requests: list[Any]) -> Any:
        raise error

    return make_client({"embedding": FakeReplicas({"embed": embed})})


def path_of(endpoint: Any) -> str:
    return str(endpoint.path).replace("{id:path}", "x/y").replace("{name}", "x")


def test_unknown_path_and_trailing_slash() -> None:
    client = make_client()
    assert_error(client.get("/nope"), 404, "not_found")
    assert_error(client.post("/v1/embeddings/", json=EMBED), 404, "not_found")
    assert_error(client.get("/" + "x" * 5000), 404, "not_found")


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
def test_wrong_method(endpoint: Any) -> None:
    client = make_client()
    allowed = {e.method for e in ENDPOINTS if path_of(e) == path_of(endpoint)}
    method = next(m for m in ("PUT", "PATCH", "POST") if m not in allowed)
    response = client.request(method, path_of(endpoint))
    assert_error(response, 405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) >= {endpoint.method}


@pytest.mark.parametrize("endpoint", WITH_JSON, ids=lambda e: e.path)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"[" * 100_000,
        b'{"model":' * 100_000,
        b'{"model": "\xff\xfe"}',
        b'{"model": "\\ud800"}',
        '{"model": "x"}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_bad_json(endpoint: Any, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = make_client().request(endpoint.method, endpoint.path, content=body, headers=headers)
    assert_error(response, 400)


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=lambda e: e.path)
def test_wrong_media_type_and_compressed_bodies(endpoint: Any) -> None:
    client = make_client()
    for headers in (
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ):
        response = client.request(endpoint.method, endpoint.path, content=b"{}", headers=headers)
        assert_error(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_while_it_arrives(chunked: bool) -> None:
    limits = LimitSettings(max_body_bytes=1000, max_upload_bytes=2000)
    client = make_client(config=AppConfig(limits=limits))
    body = json.dumps({"model": "x", "input": "y" * 3000}).encode()
    content: Any = (body[i : i + 100] for i in range(0, len(body), 100)) if chunked else body
    response = client.post(
        "/v1/embeddings", content=content, headers={"content-type": "application/json"}
    )
    assert "1000 bytes" in assert_error(response, 413, "request_too_large")["message"]
    image = {"images": ["A" * 1501]}  # small enough to be read, and then not valid base64
    assert client.post("/v1/ocr", json=image).status_code == 400
    assert client.post("/v1/ocr", json={"images": ["A" * 2500]}).status_code == 413


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidInputError("no", "input"), 400, "invalid_value"),
        (InputTooLongError(300, 256, "input"), 400, "context_length_exceeded"),
        (OverloadedError("full", 2.2), 429, "rate_limit_exceeded"),
        (LoadTimeoutError("loading", 5), 503, "model_loading"),
        (ModelLoadError("missing"), 503, "model_load_failed"),
        (MemoryRefusedError("full"), 503, "out_of_memory"),
        (ReplicaLostError("died"), 503, "engine_died"),
        (StorageError("full disk"), 507, "storage_failed"),
        (ModelError("bug"), 500, "internal_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_model_errors_have_their_status(error: ModelError, status: int, code: str) -> None:
    body = assert_error(failing(error).post("/v1/embeddings", json=EMBED), status, code)
    assert body["message"] == error.message
    assert body["param"] == getattr(error, "param", None)


def test_what_can_be_retried_says_when_and_what_cannot_says_so() -> None:
    response = failing(OverloadedError("full", 2.2)).post("/v1/embeddings", json=EMBED)
    assert response.headers["retry-after"] == "3"
    response = failing(ReplicaLostError("died")).post("/v1/embeddings", json=EMBED)
    assert response.headers["retry-after"] == "1"
    response = failing(StorageError("disk")).post("/v1/embeddings", json=EMBED)
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after" not in response.headers


def test_unexpected_failures_say_nothing_of_themselves() -> None:
    secret = "secret /etc/path 0xdeadbeef"
    response = failing(RuntimeError(secret)).post("/v1/embeddings", json=EMBED)
    error = assert_error(response, 500, "internal_error")
    assert secret not in response.text
    assert error["type"] == "server_error"


def test_our_deadline_is_a_504_that_must_not_be_retried() -> None:
    async def embed(model_id: str, requests: list[Any]) -> Any:
        await asyncio.Event().wait()

    config = AppConfig(deadlines=DeadlineSettings(load_s=0.01, batch_s=0.05))
    client = make_client({"embedding": FakeReplicas({"embed": embed})}, config=config)
    response = client.post("/v1/embeddings", json=EMBED)
    assert_error(response, 504, "deadline_exceeded")
    assert response.headers["x-should-retry"] == "false"


def test_every_error_class_has_an_answer() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, ModelError)
    ]
    assert len(classes) > 8
    for kind in classes:
        assert any(base in ANSWERS for base in kind.__mro__), kind
    statuses = {describe(kind.__new__(kind))[0].status for kind in classes if kind is ModelError}
    assert statuses == {500}


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("unknown", 404, "model_not_found"),
        ("../../etc/passwd", 404, "model_not_found"),
        ("chat-model", 400, "model_not_supported"),
        ("", 400, None),
        ("x" * 1_000_000, 400, None),
    ],
)
def test_models_are_never_guessed(model: str, status: int, code: str | None) -> None:
    response = make_client().post("/v1/embeddings", json={"model": model, "input": "x"})
    assert_error(response, status, code)
    assert len(response.text) < 1000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", False),
        ("temperature", "1"),
        ("temperature", 2.5),
        ("max_tokens", "5"),
        ("max_tokens", 1.5),
        ("max_tokens", 0),
        ("max_tokens", True),
        ("n", 1_000_000),
        ("n", 9),
        ("seed", 2**70),
        ("top_k", -(2**31)),
        ("top_logprobs", 21),
        ("stop", [""]),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("logit_bias", {"1": 101}),
        ("logit_bias", {"a": 1}),
        ("messages", []),
        ("response_format", {"type": "json_schema"}),
        ("tools", [{"type": "function"}]),
        ("chat_template", "{{ 1 }}"),
        ("chat_template_kwargs", {"chat_template": "{{ 1 }}"}),
    ],
    ids=str,
)
def test_bad_chat_fields_are_refused_by_name(field: str, value: object) -> None:
    body = {"model": "chat-model", "messages": [{"role": "user", "content": "hi"}], field: value}
    error = assert_error(make_client().post("/v1/chat/completions", json=body), 400)
    assert (error["param"] or "").startswith(field)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none(number: str) -> None:
    body = (
        '{"model": "chat-model", "messages": [{"role": "user", "content": "hi"}],'
        f' "temperature": {number}}}'
    )
    response = make_client().post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert_error(response, 400)


def test_every_answer_has_a_request_id() -> None:
    client = make_client()
    ids = {client.get("/health").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


def _many(value: object) -> object:
    return [[value] * 50] * 100


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=lambda e: e.path)
@pytest.mark.parametrize("value", [[[]], [{}] * 5000, _many([]), _many(-1)], ids=lambda _: "")
def test_a_bad_body_has_few_errors_however_large_it_is(endpoint: Any, value: object) -> None:
    """pydantic would collect millions of them, in seconds and gigabytes."""
    for field in endpoint.body.model_fields:
        content = json.dumps({field: value})
        assert error_count(endpoint.body, content) < 100


def error_count(schema: type[BaseModel], content: str) -> int:
    try:
        schema.model_validate_json(content)
    except ValidationError as error:
        return error.error_count()
    except InvalidInputError:
        return 1
    return 0


@pytest.mark.parametrize("endpoint", WITH_JSON, ids=lambda e: e.path)
def test_null_means_the_default(endpoint: Any) -> None:
    schema, sample = endpoint.body, SAMPLES[endpoint.path]
    fields = {field.alias or name: field for name, field in schema.model_fields.items()}
    optional = [name for name, field in fields.items() if not field.is_required()]
    for field in optional:
        without = {name: value for name, value in sample.items() if name != field}
        assert outcome(schema, {**without, field: None}) == outcome(schema, without), field


def outcome(schema: type[BaseModel], body: dict[str, Any]) -> object:
    """What the body means, or how it is refused."""
    try:
        return schema.model_validate_json(json.dumps(body))
    except (InvalidInputError, ValidationError) as error:
        return describe(error)


def test_an_answer_that_cannot_be_written_is_no_fault_of_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def generate(*args: Any) -> AsyncGenerator[list[Delivery]]:
        odd = TextDelta("x", finish_reason="odd", usage=Usage(1, 1))  # type: ignore[arg-type]
        yield [Delivery(args[1], (ChoiceDelta(0, odd),))]

    client = make_client({"generation": FakeReplicas(streams={"generate": generate})})
    chat = {"model": "chat-model", "messages": [{"role": "user", "content": "x"}]}
    error = assert_error(client.post("/v1/chat/completions", json=chat), 500, "internal_error")
    assert error["param"] is None
    assert [record.getMessage() for record in caplog.records if record.exc_info]


def test_more_completions_than_an_engine_queues_are_refused_by_name() -> None:
    body = {"model": "chat-model", "prompt": ["x"] * 65, "n": 2}
    error = assert_error(make_client().post("/v1/completions", json=body), 400)
    assert error["param"] == "prompt"


async def test_a_client_that_leaves_while_it_sends_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"500")]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/embeddings", "root_path": "",
        "query_string": b"", "headers": headers,
    }  # fmt: skip
    await make_app(make_server())(scope, receive, send)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_fields_to_rank_by_are_refused_by_name() -> None:
    body = {"model": "rerank-model", "query": "q", "documents": ["d"], "rank_fields": ["title"]}
    error = assert_error(make_client().post("/v1/rerank", json=body), 400)
    assert error["param"] == "rank_fields"


async def refused(path: str, *pieces: bytes, **headers: str) -> dict[bytes, bytes]:
    """The headers of the answer to a POST whose body comes in pieces."""
    left = list(pieces)
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Message) -> None:
        answers.append(message)

    sent = {"content_type": "application/json", **headers}
    scope = {
        "type": "http", "method": "POST", "path": path, "root_path": "", "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), v.encode()) for name, v in sent.items()],
    }  # fmt: skip
    await make_app(make_server())(scope, receive, send)
    assert answers[0]["status"] >= 400
    return dict(answers[0]["headers"])


@pytest.mark.parametrize(
    ("path", "pieces", "headers", "closed"),
    [
        ("/nope", (b"x", b"y"), {"content_length": "2"}, True),
        ("/nope", (b"x", b"y"), {"transfer_encoding": "chunked"}, True),
        ("/nope", (b"",), {"content_length": "0"}, False),
        ("/nope", (b"",), {}, False),
        ("/v1/embeddings", (b"{", b"}"), {"content_length": "2"}, False),
        ("/v1/embeddings", (b"{}",), {"content_length": "2", "content_type": "a/b"}, True),
        ("/v1/embeddings", (b"{}",), {"content_length": str(1 << 40)}, True),
    ],
)
async def test_a_connection_ends_where_a_body_was_not_read_to_its_end(
    path: str, pieces: tuple[bytes, ...], headers: dict[str, str], closed: bool
) -> None:
    """The server would swallow the rest, however long, before the next request."""
    found = await refused(path, *pieces, **headers)
    assert (found.get(b"connection") == b"close") is closed
