"""Templates, grammars, stop texts, images, URLs and file names, on every route that takes them."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest

from tests.security.asgi import assert_error, call
from tests.security.samples import SAMPLES
from tests.security.test_requests import WITH_JSON, assert_alive, named
from tests.security.toys import ToyServer, path_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


def taking(*names: str) -> Any:
    chosen = [e for e in WITH_JSON if set(names) & set(e.body.model_fields)]
    assert chosen
    return pytest.mark.parametrize("endpoint", chosen, ids=named)


async def refused(toys: ToyServer, endpoint: Any, **fields: Any) -> Any:
    body = {**SAMPLES[endpoint.path], **fields}
    return assert_error(await toys.send(endpoint, json.dumps(body).encode()), 400)


BOMB = "{% for i in range(10**9) %}{{i}}{% endfor %}"


@taking("chat_template", "chat_template_kwargs")
async def test_no_request_brings_a_template(toys: ToyServer, endpoint: Any) -> None:
    if "messages" not in SAMPLES[endpoint.path]:
        return  # its sibling's sample has
    error = await refused(toys, endpoint, chat_template=BOMB)
    assert error["param"] == "chat_template"
    for kwargs in ({"chat_template": BOMB}, {"tokenize": False}, {"messages": []}):
        error = await refused(toys, endpoint, chat_template_kwargs=kwargs)
        assert error["param"].startswith("chat_template_kwargs")
    await assert_alive(toys, endpoint)


DEEP: Any = {"type": "string"}
for _ in range(300):
    DEEP = {"type": "array", "items": DEEP}
SCHEMAS: dict[str, Any] = {
    "no pattern": {"type": "string", "pattern": "["},
    "no type": {"type": "nope"},
    "remote": {"$ref": "http://127.0.0.1/"},
    "file": {"$ref": "file:///etc/passwd"},
    "branches": {"anyOf": [{"const": f"c{i}"} for i in range(10_000)]},
    "deep": DEEP,
}


@taking("guided_json", "response_format")
@pytest.mark.parametrize("name", SCHEMAS)
async def test_schemas_that_cost_are_refused(toys: ToyServer, endpoint: Any, name: str) -> None:
    schema = SCHEMAS[name]
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    await refused(toys, endpoint, response_format=wanted)
    if "guided_json" in endpoint.body.model_fields:
        await refused(toys, endpoint, guided_json=schema)


@taking("stop")
async def test_stop_texts_are_few_and_short(toys: ToyServer, endpoint: Any) -> None:
    for stop in (["x"] * 10_000, "x" * 1_000_000, ["x" * 1_000_000], "", [""], ["a"] * 5):
        error = await refused(toys, endpoint, stop=stop)
        assert error["param"].startswith("stop")


def png(width: int, height: int, *extra: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), *((b"zTXt", e) for e in extra), (b"IDAT", pixels))
    )


IMAGES = {
    "claims pixels": png(2**31 - 1, 2**31 - 1),
    "large": png(50_000, 50_000),
    "none": png(0, 0),
    "text bomb": png(1, 1, b"k\0\0" + zlib.compress(b"a" * 80_000_000)),
    "cut": png(100, 100)[:60],
    "empty": b"",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n(/etc/passwd) run\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "html": b"<html><script>1</script></html>",
    "psd": b"8BPS\0\1" + b"\0" * 60,
    "ico": b"\0\0\1\0\1\0" + b"\0" * 60,
    "fits": b"SIMPLE  =                    T".ljust(2880),
    "pdf": b"%PDF-1.7\n<html>",
}


@taking("images")
@pytest.mark.parametrize("name", IMAGES)
async def test_images_that_are_none_or_too_large(toys: ToyServer, endpoint: Any, name: str) -> None:
    image = base64.b64encode(IMAGES[name]).decode()
    if "embed" in endpoint.path:
        await refused(toys, endpoint, images=[f"data:image/png;base64,{image}"])
        return
    await refused(toys, endpoint, images=[image], document=None)
    uri = {"type": "document_url", "document_url": f"data:image/png;base64,{image}"}
    await refused(toys, endpoint, images=None, document=uri)
    await assert_alive(toys, endpoint)


URLS = (
    "http://127.0.0.1:9/",
    "http://[::1]:9/",
    "http://2130706433:9/",
    "http://localhost.:9/",
    "http://a@127.0.0.1:9/",
    "http://169.254.169.254/latest/meta-data",
    "file:///etc/passwd",
    "ftp://127.0.0.1/",
    "gopher://127.0.0.1/",
    "data:text/html,x",
    "data:;base64,!!!!",
    "javascript:1",
    "//127.0.0.1/",
    "",
)


@taking("document")
async def test_no_url_is_fetched(toys: ToyServer, endpoint: Any) -> None:
    for url in URLS:
        for kind in ("document_url", "image_url"):
            document = {"type": kind, kind: url}
            await refused(toys, endpoint, images=None, document=document)


FILE_NAMES = (
    ";touch x;.png", "../../x", "..\\..\\x", "C:\\x", "con", "-rf", "n" * 500, "$(id)", "a\x07b",
)  # fmt: skip


@pytest.mark.parametrize("endpoint", [e for e in WITH_JSON if e.path == "/v1/ocr"], ids=named)
async def test_names_of_files_do_not_matter(toys: ToyServer, endpoint: Any) -> None:
    image = base64.b64decode(SAMPLES["/v1/vision/ocr"]["images"][0])
    headers = {"content-type": "multipart/form-data; boundary=x"}
    replies = []
    for name in ("a.png", *FILE_NAMES):
        head = f'--x\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        form = head.encode() + image + b"\r\n--x--\r\n"
        reply = await call(toys.app, endpoint.method, path_of(endpoint), form, headers)
        assert reply.status == 200, (name, reply.text)
        replies.append(reply.json()["pages"])
    assert all(pages == replies[0] for pages in replies)
