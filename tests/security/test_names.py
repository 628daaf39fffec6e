"""Names that are none, on every route that takes one: in fields, in paths, in headers."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest

from deployments.ingress.app import all_endpoints
from tests.security.asgi import JSON, assert_error, call
from tests.security.samples import SAMPLES
from tests.security.test_requests import assert_alive, every_route, named
from tests.security.toys import ToyServer

pytestmark = pytest.mark.asyncio(loop_scope="session")
NAMES = (
    "../../etc/passwd",
    "/etc/passwd",
    "..%2f..%2fetc",
    "a/../../b",
    "C:\\x",
    "\\\\host\\share",
    "file:///etc/passwd",
    "https://host/x",
    "a\x00b",
    "a\nFAKE",
    "__proto__",
    "$(id)",
    "{{7*7}}",
    ".",
    "..",
    " ",
    "x" * 100_000,
    "\u202e",
)
FIELDS = ("model", "ocr_model", "base_model", "file_id", "name", "alias")
WITH_NAMES = [e for e in all_endpoints() if "{" in e.path]
STRANGERS = {
    "mmproj": "/etc/passwd",
    "lora": [{"id": 0, "scale": 1e9}],
    "api_base": "http://127.0.0.1:1/",
    "model_path": "/etc/passwd",
    "trust_remote_code": True,
    "n_discard": -1,
    "n_keep": -1_000_000_000,
    "__class__": {"__init__": {"__globals__": {}}},
}


def assert_refused(reply: Any, name: str) -> None:
    assert reply.status in {400, 404}, (name, reply.status, reply.text[:300])
    assert_error(reply)


@every_route
async def test_names_in_fields(toys: ToyServer, endpoint: Any) -> None:
    sample = SAMPLES[endpoint.path]
    for field in [field for field in FIELDS if field in endpoint.body.model_fields]:
        for name in NAMES:
            body = {**sample, field: name}
            if field == "file_id":
                body = {k: v for k, v in body.items() if k not in {"document", "images"}}
            assert_refused(await toys.send(endpoint, json.dumps(body).encode()), name)
    await assert_alive(toys, endpoint)


@pytest.mark.parametrize("endpoint", WITH_NAMES, ids=named)
async def test_names_in_paths(toys: ToyServer, endpoint: Any) -> None:
    body = json.dumps(SAMPLES[endpoint.path]).encode() if endpoint.body else b""
    start, _, rest = endpoint.path.partition("{")
    rest = rest.partition("}")[2].replace("{version}", "1")
    for name in NAMES:
        target = start + quote(name, safe="") + rest
        reply = await call(toys.app, endpoint.method, target, body, JSON)
        if reply.status == 405:  # it became another path
            continue
        assert_refused(reply, name)


@every_route
async def test_fields_that_nobody_knows_change_nothing(toys: ToyServer, endpoint: Any) -> None:
    body = json.dumps({**SAMPLES[endpoint.path], **STRANGERS}).encode()
    reply = await toys.send(endpoint, body)
    assert reply.status == (404 if endpoint.path.endswith("/rename") else 200), reply.text


async def test_headers_choose_no_model(toys: ToyServer) -> None:
    body = json.dumps(SAMPLES["/v1/embeddings"]).encode()
    plain = await call(toys.app, "POST", "/v1/embeddings", body, JSON)
    for name in NAMES[:6]:
        headers = {**JSON, "serve_multiplexed_model_id": name, "x-session-id": name}
        reply = await call(toys.app, "POST", "/v1/embeddings", body, headers)
        assert reply.json() == plain.json()


async def test_one_request_id_for_all_mixes_up_nothing(toys: ToyServer) -> None:
    def body(number: int) -> bytes:
        return json.dumps({**SAMPLES["/v1/rerank"], "query": f"the sea of {number}"}).encode()

    async def results(number: int, headers: dict[str, str]) -> Any:
        reply = await call(toys.app, "POST", "/v1/rerank", body(number), {**JSON, **headers})
        return reply.json()["results"]

    alone = [await results(number, {}) for number in range(50)]
    shared = {"x-request-id": "one-for-all"}
    assert await asyncio.gather(*(results(number, shared) for number in range(50))) == alone
    assert len({str(result) for result in alone}) > 1
