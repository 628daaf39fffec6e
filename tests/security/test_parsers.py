"""What reads words and files of strangers: anything at all is read, or refused by a typed error.

Hypothesis makes the inputs, the same at every run; each property also bounds what comes out.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import ipaddress
import json
import math
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from deployments.ingress.access.hosts import check_hosts
from deployments.ingress.document_inputs import Input, Reference, find_input
from deployments.ingress.errors import RequestRefused
from deployments.ingress.keep_alive_fields import LIMIT_S, parse_keep_alive
from deployments.model_cache.slot import PINNED
from models.anomaly.uploads import read_table
from models.documents.selection import parse_pages, select_pages
from models.errors import InvalidInputError, ModelLoadError, UnsupportedInputError
from models.llama_cpp.gguf_header import read_gguf_header
from models.types.anomaly import NumericTable, UploadedTable
from tests.fakes import make_server
from tests.security.asgi import JSON, assert_error, call
from tests.security.samples import DETECTOR
from tests.security.toys import ToyServer
from tests.unit.weights_samples import gguf, gguf_string, gguf_tensor, safetensors
from weights.headers import HeaderError, check_gguf, check_safetensors

many = settings(max_examples=500, derandomize=True, deadline=None, database=None)
few = settings(many, max_examples=100)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)

# --- words of requests -----------------------------------------------------------------------

PAGES = st.text(alphabet="0123456789-, \n٣²x", max_size=40) | st.text(max_size=20)
MAX_PAGES = 50


@many
@given(PAGES | st.lists(st.integers(), max_size=20), st.integers(1, 10_000))
def test_page_selections(pages: Any, page_count: int) -> None:
    with contextlib.suppress(InvalidInputError):
        chosen = select_pages(parse_pages(pages), page_count, MAX_PAGES)
        assert 0 < len(chosen) == len(set(chosen)) <= MAX_PAGES
        assert 0 <= min(chosen) <= max(chosen) < page_count


@many
@given(st.text(alphabet="0123456789.+-hmsnuµ eE٣∞", max_size=80) | ANY_JSON)
def test_durations(value: Any) -> None:
    with contextlib.suppress(ValueError):
        seconds = parse_keep_alive(value)
        assert type(seconds) is float
        assert 0 <= seconds < LIMIT_S or seconds == PINNED


def ours(name: str) -> bool:
    """What a Host header may name: this machine, an address, or what the operator allows."""
    if name in {"localhost", "api.example.com"} or name.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(name.strip("[]")))
    return False


PIECES = ("localhost", "api.example.com", "127.0.0.1", "[::1]", "evil.com", "@")
ENDS = (":80", ":", ".", "/x", " ", "?")
HOSTS = st.binary(max_size=40) | st.lists(st.sampled_from((*PIECES, *ENDS)), max_size=4).map(
    lambda parts: "".join(parts).encode()
)


@many
@given(st.lists(HOSTS, max_size=3))
def test_host_names(values: list[bytes]) -> None:
    try:
        check_hosts(values, {"api.example.com"})
    except RequestRefused:
        return
    assert values
    for value in values:
        name = value.decode("latin-1").strip().lower()
        head, _, port = name.rpartition(":")
        assert ours(name.removesuffix(".")) or (port.isdigit() and ours(head.removesuffix(".")))


HEADS = ("data:image/png;base64,", "data:;base64,", "data:,", "data:", "http://", "", "//")
CONTENTS = st.text(max_size=40) | st.binary().map(
    lambda content: base64.b64encode(content).decode()
)
URLS = st.tuples(st.sampled_from(HEADS), CONTENTS).map("".join)


@many
@given(text=URLS, url=st.booleans())
def test_data_urls(text: str, url: bool) -> None:
    server = make_server()
    request = Request({"type": "http", "path": "/", "headers": [(b"host", b"here")]})
    with contextlib.suppress(InvalidInputError):
        found = asyncio.run(find_input(server, request, Reference(text, "document", url)))
        assert isinstance(found, Input)
        assert isinstance(found.source, bytes)
        assert found.size == len(found.source) <= len(text)


NAMES = st.binary(max_size=80).filter(lambda name: not set(b'"\\\r\n') & set(name))


@pytest.mark.asyncio(loop_scope="session")
@few
@given(name=NAMES | st.text(alphabet='./\\:"%0a\x00\u202e', max_size=40).map(str.encode))
async def test_names_of_uploaded_files(toys: ToyServer, name: bytes) -> None:
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="%b"\r\n\r\n' % name
    kind = {"content-type": "multipart/form-data; boundary=x"}
    reply = await call(toys.app, "POST", "/v1/files", head + b"x\r\n--x--\r\n", kind)
    if reply.status != 200:
        assert_error(reply, 400)
        return
    shown = reply.json()["filename"]
    assert 0 < len(shown) <= 255
    assert shown.isprintable()
    assert not set("/\\") & set(shown)
    deleted = await call(toys.app, "DELETE", f"/v1/files/{reply.json()['id']}")
    assert deleted.status == 200


# --- tables ----------------------------------------------------------------------------------

ODD_CELLS = ("-1e400", "nan", "inf", "", '"', '""', "2026-01-01", "true", "\x00", "\ufeff", "=1+1")
CELLS = st.sampled_from(("1", "x", *ODD_CELLS)) | st.text(max_size=6)
LINES = st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=6)
CSV_FILES = st.binary(max_size=60) | LINES.map("\n".join).map(str.encode)


@many
@given(data=CSV_FILES, header=st.booleans())
def test_csv_files(data: bytes, header: bool) -> None:
    try:
        table = read_table(UploadedTable("csv", data, 5, 3, header))
    except (InvalidInputError, UnsupportedInputError):
        return
    rows = table.values if isinstance(table, NumericTable) else table.rows
    assert 0 < len(rows) <= 5
    assert {len(row) for row in rows} <= {1, 2, 3}
    assert (table.columns is not None) == header


def test_a_parquet_file_whose_texts_are_none() -> None:
    texts = pa.array([b"\xff", b"a"], pa.binary()).view(pa.string())
    file = io.BytesIO()
    pa.parquet.write_table(pa.table({"a": texts}), file)
    with pytest.raises(UnsupportedInputError, match="damaged"):
        read_table(UploadedTable("parquet", file.getvalue(), 5, 3))


ROWS = st.lists(
    st.lists(ANY_JSON, max_size=3)
    | st.dictionaries(st.sampled_from(("0", "1", "a")), ANY_JSON, max_size=3),
    max_size=4,
)


@pytest.mark.asyncio(loop_scope="session")
@few
@given(rows=ROWS | ANY_JSON)
async def test_rows_of_tables(toys: ToyServer, rows: Any) -> None:
    body = json.dumps({"model": DETECTOR, "data": rows}).encode()
    reply = await call(toys.app, "POST", "/v1/anomaly/score", body, JSON)
    if reply.status != 200:
        assert_error(reply, 400)
        return
    scores = [row["score"] for row in reply.json()["data"]]
    assert len(scores) == len(rows)
    assert all(map(math.isfinite, scores))


# --- headers of weights ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


HEADERS = st.one_of(
    ANY_JSON,
    st.dictionaries(st.text(max_size=3), ANY_JSON, max_size=3),
    st.dictionaries(
        st.text(max_size=3),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(("F32", "U8", "F4", "x")) | ANY_JSON,
                "shape": st.lists(st.integers(-1, 4) | ANY_JSON, max_size=3) | ANY_JSON,
                "data_offsets": st.lists(st.integers(-8, 16) | ANY_JSON, max_size=3) | ANY_JSON,
            }
        ),
        max_size=3,
    ),
)


@many
@given(header=HEADERS, data=st.binary(max_size=16))
def test_headers_of_safetensors(folder: Path, header: Any, data: bytes) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(safetensors(json.dumps(header).encode(), data))
    with contextlib.suppress(HeaderError):
        check_safetensors(path)
        ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
        assert max(ends, default=0) == len(data)


SOUND = gguf(
    keys=(
        gguf_string(b"general.architecture") + struct.pack("<I", 8) + gguf_string(b"llama"),
        gguf_string(b"general.alignment") + struct.pack("<II", 4, 32),
        gguf_string(b"t") + struct.pack("<IIQ", 9, 8, 2) + gguf_string(b"a") * 2,
        gguf_string(b"n") + struct.pack("<IIQII", 9, 4, 2, 7, 7),
    ),
    tensors=(gguf_tensor(), gguf_tensor(offset=32)),
)
NUMBERS = st.sampled_from((0, 1, 2**31, 2**32 - 1, 2**62 - 1, 2**63, 2**64 - 1)) | st.integers(
    0, 64
)
PATCHES = st.one_of(st.binary(max_size=12), NUMBERS.map(lambda number: struct.pack("<Q", number)))


@many
@given(at=st.integers(0, len(SOUND)), patch=PATCHES, cut=st.integers(0, 40))
def test_headers_of_gguf(folder: Path, at: int, patch: bytes, cut: int) -> None:
    """A sound file, overwritten and cut somewhere; by what fetches weights, and by the engine."""
    path = folder / "model.gguf"
    content = SOUND[:at] + patch + SOUND[at + len(patch) :]
    path.write_bytes(content[: len(content) - cut])
    with contextlib.suppress(HeaderError):
        check_gguf(path)
    with contextlib.suppress(ModelLoadError):
        header = read_gguf_header(path)
        assert sum(header.tensors.values()) <= len(content)
