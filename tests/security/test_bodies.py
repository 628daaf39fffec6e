"""Bodies that are too large, compressed, malformed forms, or never arrive; on every route."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from config.settings import AppConfig, DeadlineSettings, FileSettings, LimitSettings
from deployments.ingress.app import all_endpoints, make_app
from tests.fakes import make_server
from tests.security.asgi import JSON, assert_error, call

WITH_BODY = [endpoint for endpoint in all_endpoints() if endpoint.body is not None]
FORMS = [e for e in WITH_BODY if "multipart/form-data" in e.media_types]
LIMIT = 100_000
every_route = pytest.mark.parametrize("endpoint", WITH_BODY, ids=lambda e: f"{e.method} {e.path}")
every_form = pytest.mark.parametrize("endpoint", FORMS, ids=lambda e: f"{e.method} {e.path}")


def app_of(folder: Path, **sections: Any) -> ASGIApp:
    return make_app(make_server(config=AppConfig(data_dir=folder, **sections)))


@pytest.fixture
def app(tmp_path: Path) -> ASGIApp:
    limits = LimitSettings(max_body_bytes=LIMIT, max_upload_bytes=LIMIT, max_table_bytes=LIMIT)
    return app_of(tmp_path, limits=limits, files=FileSettings(max_file_bytes=LIMIT))


def media_types(endpoint: Any) -> list[str]:
    types = [kind.replace("*", "png") for kind in endpoint.media_types]
    return [f"{kind}; boundary=x" if kind.startswith("multipart") else kind for kind in types]


async def endless(chunk: bytes, pause_s: float | None = None) -> AsyncIterator[bytes]:
    while True:
        yield chunk
        await asyncio.sleep(pause_s or 0)


@every_route
async def test_bodies_are_counted_while_they_arrive(app: ASGIApp, endpoint: Any) -> None:
    """Whether their length is announced or not, and however they are typed."""
    for kind in media_types(endpoint):
        start = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        first = start if kind.startswith("multipart") else b'"'

        async def body(first: bytes = first) -> AsyncIterator[bytes]:
            yield first
            async for chunk in endless(b"a" * 65536):
                yield chunk

        reply = await call(app, endpoint.method, endpoint.path, body(), {"content-type": kind})
        assert_error(reply, 413, "request_too_large")
        assert reply.headers["connection"] == "close"


@every_route
async def test_an_announced_length_is_refused_before_a_byte_is_read(
    app: ASGIApp, endpoint: Any
) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    for length in (str(1 << 40), "9" * 5000, "-1", "1e3", ""):
        for kind in media_types(endpoint):
            headers = {"content-type": kind, "content-length": length}
            reply = await call(app, endpoint.method, endpoint.path, unread(), headers)
            assert_error(reply, 413, "request_too_large")


@every_route
async def test_compressed_bodies_are_refused_unread(app: ASGIApp, endpoint: Any) -> None:
    bomb = gzip.compress(b"a" * 10_000_000)
    for encoding in ("gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "x"):
        for kind in media_types(endpoint):
            headers = {"content-type": kind, "content-encoding": encoding}
            reply = await call(app, endpoint.method, endpoint.path, bomb, headers)
            assert_error(reply, 415, "unsupported_media_type")


@every_route
async def test_a_media_type_that_a_page_could_send_is_refused(app: ASGIApp, endpoint: Any) -> None:
    """Browsers send these to other origins without asking."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "text/html", ""):
        reply = await call(app, endpoint.method, endpoint.path, b"{}", {"content-type": kind})
        assert_error(reply, 415, "unsupported_media_type")


async def test_a_large_body_is_not_gathered(app: ASGIApp) -> None:
    tracemalloc.start()
    try:
        reply = await call(app, "POST", "/v1/embeddings", endless(b"a" * 1_000_000), JSON)
        assert_error(reply, 413)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@every_route
async def test_a_body_that_does_not_arrive_is_given_up(tmp_path: Path, endpoint: Any) -> None:
    app = app_of(tmp_path, deadlines=DeadlineSettings(body_s=0.02))
    for kind in media_types(endpoint):
        headers = {"content-type": kind}
        reply = await call(app, endpoint.method, endpoint.path, endless(b"", 0.005), headers)
        assert_error(reply, 408, "request_timeout")
        assert reply.headers["connection"] == "close"


async def test_what_arrives_steadily_gets_more_time(tmp_path: Path) -> None:
    """2 MB in pieces: half a minute is added while they come, so that 0.05 s are enough."""
    app = app_of(tmp_path, deadlines=DeadlineSettings(body_s=0.05))

    async def steady() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000
            await asyncio.sleep(0.01)

    reply = await call(app, "POST", "/v1/embeddings", steady(), JSON)
    assert_error(reply, 400, "invalid_value")


PART = b'--x\r\ncontent-disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
HEADERS = b"".join(b"h%d: x\r\n" % index for index in range(10_000))
FORM_BODIES = {
    "no form": b"nothing",
    "empty": b"",
    "parts": b"".join(PART % (b"f%d" % i, b"", b"") for i in range(1500)) + b"--x--\r\n",
    "files": b"".join(PART % (b"f%d" % i, b'; filename="a"', b"") for i in range(1000)),
    "preamble": b"\r\n" * 45_000 + PART % (b"a", b"", b"b"),
    "no end": b"--x\r\ncontent-disposition: form-data; name=",
    "headers": b"--x\r\n" + HEADERS[:90_000],
    "long header": b'--x\r\ncontent-disposition: form-data; name="' + b"n" * 90_000,
    "no name": b"--x\r\ncontent-disposition: form-data\r\n\r\nx\r\n--x--\r\n",
    "bytes": b'--x\r\ncontent-disposition: form-data; name="\xff\x00"\r\n\r\nx\r\n--x--\r\n',
}


@every_form
@pytest.mark.parametrize("name", FORM_BODIES)
async def test_hostile_forms(app: ASGIApp, endpoint: Any, name: str) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert_error(await call(app, endpoint.method, endpoint.path, FORM_BODIES[name], headers), 400)


@every_form
@pytest.mark.parametrize(
    "boundary", ["", "=", "=" + "b" * 5000, '="', "=\xff", "=x; charset=nothing", "*=utf-8''x"]
)
async def test_hostile_boundaries(app: ASGIApp, endpoint: Any, boundary: str) -> None:
    headers = {"content-type": f"multipart/form-data; boundary{boundary}"}
    body = PART % (b"purpose", b"", b"vision") + b"--x--\r\n"
    assert_error(await call(app, endpoint.method, endpoint.path, body, headers), 400)
