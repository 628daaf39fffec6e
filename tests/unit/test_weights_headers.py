from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest

from tests.unit.weights_samples import gguf, gguf_string, gguf_tensor, safetensors
from weights.headers import HeaderError, check_gguf, check_safetensors

MANY = 1 << 63


def nested_array(depth: int) -> bytes:
    key = gguf_string(b"deep") + struct.pack("<I", 9)
    return key + struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQI", 4, 1, 0)


def alignment(value: int) -> bytes:
    return gguf_string(b"general.alignment") + struct.pack("<II", 4, value)


def tensor(**fields: object) -> dict[str, object]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **fields}}


def two_tensors(second: list[int]) -> dict[str, object]:
    return {**tensor(), "v": {"dtype": "F32", "shape": [2], "data_offsets": second}}


SOUND_SAFETENSORS = {
    "one tensor": safetensors(),
    "metadata": safetensors({"__metadata__": {"format": "pt"}, **tensor()}),
    "scalar": safetensors(tensor(shape=[], data_offsets=[0, 4]), b"\0" * 4),
    "empty tensor": safetensors(tensor(shape=[0], data_offsets=[0, 0]), b""),
    "four bits": safetensors(tensor(dtype="F4", shape=[4], data_offsets=[0, 2]), b"\0" * 2),
    "two tensors": safetensors(two_tensors([8, 16]), b"\0" * 16),
}
BROKEN_SAFETENSORS = {
    "empty": b"",
    "shorter than its length field": b"\1\0\0",
    "pickle": pickle.dumps({"w": [1.0] * 100}),
    "header length 2^63-1": struct.pack("<Q", MANY - 1) + b"{}",
    "header length 1 GiB": struct.pack("<Q", 1 << 30) + b"{}" + b"\0" * 64,
    "cut in the header": safetensors()[:20],
    "cut in the data": safetensors()[:-1],
    "bytes after the data": safetensors() + b"\0",
    "not JSON": safetensors(b"{'w': 1}"),
    "not UTF-8": safetensors(b'{"\xff": 1}'),
    "not an object": safetensors(b"[1, 2]"),
    "nested too deep": safetensors(b"[" * 100_000),
    "duplicate key": safetensors(
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    ),
    "tensor is a number": safetensors({"w": 1}),
    "no shape": safetensors({"w": {"dtype": "F32", "data_offsets": [0, 8]}}),
    "unknown type": safetensors(tensor(dtype="F33")),
    "overlap": safetensors(two_tensors([4, 12]), b"\0" * 12),
    "gap": safetensors(two_tensors([12, 20]), b"\0" * 20),
    "offset past the end": safetensors(tensor(shape=[4], data_offsets=[0, 16])),
    "negative offset": safetensors(tensor(data_offsets=[-8, 0]), b""),
    "backward offsets": safetensors(tensor(data_offsets=[8, 0])),
    "three offsets": safetensors(tensor(data_offsets=[0, 4, 8])),
    "offset is a float": safetensors(tensor(data_offsets=[0, 8.0])),
    "offset is true": safetensors(tensor(dtype="U8", shape=[1], data_offsets=[0, True]), b"\0"),
    "shape not matching the size": safetensors(tensor(shape=[3])),
    "negative dimension": safetensors(tensor(shape=[-2])),
    "overflowing shape": safetensors(tensor(shape=[MANY, MANY, 4])),
    "a thousand dimensions": safetensors(tensor(shape=[1] * 1000 + [2])),
}
SOUND_GGUF = {
    "one tensor": gguf(),
    "version 2": gguf(version=2),
    "no tensors": gguf(tensors=()),
    "alignment 64": gguf(keys=(alignment(64),), tensors=(gguf_tensor(offset=64),), data=b"x" * 256),
    "array of strings": gguf(
        keys=(gguf_string(b"t") + struct.pack("<IIQ", 9, 8, 2) + gguf_string(b"a") * 2,)
    ),
    "array of numbers": gguf(keys=(gguf_string(b"t") + struct.pack("<IIQII", 9, 4, 2, 7, 7),)),
    "two tensors": gguf(tensors=(gguf_tensor(), gguf_tensor(offset=32))),
}
BROKEN_GGUF = {
    "empty": b"",
    "wrong magic": gguf(magic=b"GGML"),
    "pickle": pickle.dumps([b"x" * 100]),
    "version 999": gguf(version=999),
    "big-endian version": gguf(version=3 << 24),
    "tensor count 2^63": gguf(tensor_count=MANY),
    "key count 2^63": gguf(key_count=MANY),
    "more tensors than there are": gguf(tensor_count=2, data=b""),
    "more keys than there are": gguf(key_count=3),
    "string length 2^63": gguf(keys=(struct.pack("<Q", MANY),)),
    "string past the end": gguf(keys=(struct.pack("<Q", 60_000),)),
    "array length 2^63": gguf(keys=(gguf_string(b"a") + struct.pack("<IIQ", 9, 4, MANY),)),
    "array past the end": gguf(keys=(gguf_string(b"a") + struct.pack("<IIQ", 9, 10, 50),)),
    "unknown value type": gguf(keys=(gguf_string(b"a") + struct.pack("<I", 13),)),
    "nested 2000 deep": gguf(keys=(nested_array(2000),)),
    "alignment 0": gguf(keys=(alignment(0),)),
    "alignment 2^31": gguf(keys=(alignment(1 << 31),)),
    "alignment 12": gguf(keys=(alignment(12),)),
    "alignment is a string": gguf(
        keys=(gguf_string(b"general.alignment") + struct.pack("<I", 8) + gguf_string(b"32"),)
    ),
    "dimension 2^62-1": gguf(tensors=(gguf_tensor(((1 << 62) - 1, 4)),)),
    "zero dimension": gguf(tensors=(gguf_tensor((0,)),)),
    "no dimensions": gguf(tensors=(gguf_tensor(()),)),
    "n_dims 2^32-1": gguf(tensors=(gguf_tensor((8,), n=(1 << 32) - 1),)),
    "tensor offset 2^40": gguf(tensors=(gguf_tensor(offset=1 << 40),)),
    "tensor not aligned": gguf(tensors=(gguf_tensor(offset=8),)),
    "no data": gguf(data=b""),
    "cut in the header": gguf()[:40],
}


@pytest.mark.parametrize("content", SOUND_SAFETENSORS.values(), ids=SOUND_SAFETENSORS.keys())
def test_sound_safetensors_pass(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    check_safetensors(path)


@pytest.mark.parametrize("content", BROKEN_SAFETENSORS.values(), ids=BROKEN_SAFETENSORS.keys())
def test_broken_safetensors_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(HeaderError) as caught:
        check_safetensors(path)
    assert caught.value.message.startswith("model.safetensors")
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("content", SOUND_GGUF.values(), ids=SOUND_GGUF.keys())
def test_sound_gguf_passes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    check_gguf(path)


@pytest.mark.parametrize("content", BROKEN_GGUF.values(), ids=BROKEN_GGUF.keys())
def test_broken_gguf_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(HeaderError) as caught:
        check_gguf(path)
    assert caught.value.message.startswith("model.gguf")
    assert str(tmp_path) not in caught.value.message


def test_what_the_libraries_write_passes(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    writer = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "model.safetensors"
    writer.save_file({"a": numpy.zeros((2, 3)), "b": numpy.ones(5, "f2")}, path, {"format": "pt"})
    check_safetensors(path)
