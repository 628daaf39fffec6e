"""The GGUF header in pure Python: what it tells, and what is refused before native code sees it."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ModelLoadError
from models.llama_cpp.gguf_header import read_gguf_header
from tests.chat_templates import CHATML
from tests.tiny_gguf import CONTEXT, FEED_FORWARD, LAYERS, WIDTH, write_gguf


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").read_bytes()


def header(path: Path, content: bytes):  # type: ignore[no-untyped-def]
    path = path / "file.gguf"
    path.write_bytes(content)
    return read_gguf_header(path)


def test_what_it_tells(tmp_path: Path, data: bytes) -> None:
    found = header(tmp_path, data)
    assert found.architecture == "llama"
    assert found.context_length == CONTEXT
    assert found.chat_template == CHATML
    assert found.vocabulary == found.values["llama.vocab_size"]
    assert found.tensor_count == 3 + 9 * LAYERS


def test_the_format_of_most_numbers(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "q4_1.gguf", kind="Q4_1")
    found = read_gguf_header(path)
    assert found.main_format == 3
    assert set(found.format_counts) == {0, 3}
    assert found.format_counts[0] == WIDTH * (1 + 2 * LAYERS)
    assert read_gguf_header(write_gguf(tmp_path / "f32.gguf")).main_format == 0


def test_without_a_chat_template(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "plain.gguf", chat_template=None)
    assert read_gguf_header(path).chat_template is None


def test_the_bytes_of_every_tensor(tmp_path: Path, data: bytes) -> None:
    found = header(tmp_path, data)
    assert found.tensors["token_embd.weight"] == 4 * WIDTH * found.vocabulary
    assert found.tensors["blk.1.ffn_down.weight"] == 4 * WIDTH * FEED_FORWARD
    assert len(found.tensors) == found.tensor_count
    with pytest.raises(ModelLoadError, match="beyond the end"):
        header(tmp_path, data[:-9000])


def test_the_largest_of_several_numbers(tmp_path: Path) -> None:
    found = header(tmp_path, _file(_key("a.heads", 9, _numbers(2, 3, 1))))
    found.values["general.architecture"] = "a"
    assert (found.number("heads"), found.number("none", 7)) == (3, 7)


def _key(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


def _numbers(*values: int) -> bytes:
    return struct.pack(f"<IQ{len(values)}I", 4, len(values), *values)


def _file(*keys: bytes, tensors: int = 0, count: int | None = None, version: int = 3) -> bytes:
    count = len(keys) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", version, tensors, count) + b"".join(keys)


TENSOR = struct.pack("<Q", 1) + b"t"
BROKEN = {
    "empty": b"",
    "magic": b"GGML" + bytes(60),
    "cut": b"GGUF\x03",
    "version": _file(version=9),
    "key count": _file(count=2**40),
    "tensor count": _file(tensors=2**40),
    "string": _file(struct.pack("<Q", 2**60)),
    "string beyond the end": _file(struct.pack("<Q", 1000) + b"a"),
    "not UTF-8": _file(struct.pack("<Q", 1) + b"\xff" + struct.pack("<IB", 0, 0)),
    "type": _file(_key("k", 77, b"")),
    "array": _file(_key("k", 9, struct.pack("<IQ", 0, 2**60))),
    "array type": _file(_key("k", 9, struct.pack("<IQ", 9, 1))),
    "alignment": _file(_key("general.alignment", 4, struct.pack("<I", 3))),
    "alignment type": _file(_key("general.alignment", 8, struct.pack("<Q", 0))),
    "dimensions": _file(tensors=1) + TENSOR + struct.pack("<I", 99),
    "shape": _file(tensors=1) + TENSOR + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0),
    "offset": _file(tensors=1) + TENSOR + struct.pack("<IQIQ", 1, 1, 0, 2**50),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_files_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelLoadError) as refused:
        header(tmp_path, content)
    assert str(tmp_path) not in refused.value.message


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError) as refused:
        read_gguf_header(tmp_path / "nothing.gguf")
    assert "nothing" not in refused.value.message


@given(position=st.integers(0, 7000), value=st.integers(0, 255))
def test_damage_anywhere_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, position: int, value: int
) -> None:
    damaged = bytearray(data)
    damaged[position] = value
    with contextlib.suppress(ModelLoadError):
        header(tmp_path_factory.getbasetemp(), bytes(damaged))
