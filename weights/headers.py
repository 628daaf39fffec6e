"""Bounded checks of safetensors and GGUF headers in pure Python, before native code sees a file.

Sizes, counts, depths and offsets are compared with the file's length before anything is read or
allocated for them. Formats: https://github.com/huggingface/safetensors#format and
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import ModelLoadError

MAX_SAFETENSORS_HEADER = 100_000_000
"""The safetensors library's own limit, in bytes."""
_SAFETENSORS_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32,
    "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

GGUF_MAGIC = b"GGUF"
_GGUF_VERSIONS = (2, 3)
_GGUF_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_UINT32, _GGUF_STRING, _GGUF_ARRAY = 4, 8, 9
_GGUF_DEFAULT_ALIGNMENT = 32
MAX_GGUF_KEYS = 65_536
MAX_GGUF_TENSORS = 262_144
MAX_GGUF_NAME = 65_535
MAX_GGUF_DEPTH = 4
MAX_ELEMENTS = 1 << 48


class HeaderError(ModelLoadError):
    """The file is not what its suffix says, or its header is inconsistent."""


# --- safetensors ----------------------------------------------------------------------------


def check_safetensors(path: Path) -> None:
    """Raises HeaderError, naming the file, unless the header describes exactly this file."""
    header, data_size = _read_header(path)
    _check_tensors(header, data_size, path.name)


def safetensors_header(path: Path) -> dict[str, Any]:
    """Tensor name -> "dtype", "shape" and "data_offsets", as stored. Raises HeaderError."""
    return _read_header(path)[0]


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """(what is said of the tensors, bytes after the header)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(MAX_SAFETENSORS_HEADER, size - 8):
            raise HeaderError(f"{path.name} is not a whole safetensors file: bad header length.")
        return _parse_header(file.read(length), path.name), size - 8 - length


def _parse_header(raw: bytes, name: str) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"{name} is not a safetensors file: its header is not JSON.") from error
    if not isinstance(header, dict):
        raise HeaderError(f"{name} is not a safetensors file: its header is not an object.")
    header.pop("__metadata__", None)
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # the safetensors library silently takes the last of two tensors with one name
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _check_tensors(header: Mapping[str, Any], data_size: int, name: str) -> None:
    try:
        spans = sorted(_span(tensor) for tensor in header.values())
    except (KeyError, TypeError, ValueError) as error:
        raise HeaderError(f"{name}: a tensor is described wrongly in the header.") from error
    end = 0
    for start, stop in spans:
        if start != end:
            raise HeaderError(f"{name}: tensors overlap or leave a gap.")
        end = stop
    if end != data_size:
        raise HeaderError(f"{name} is cut or has bytes that no tensor owns.")


def _span(tensor: Mapping[str, Any]) -> tuple[int, int]:
    start, stop = tensor["data_offsets"]
    elements = _product(tensor["shape"], minimum=0)
    bits = _SAFETENSORS_BITS[tensor["dtype"]]
    if type(start) is not int or type(stop) is not int or start < 0:
        raise ValueError("offsets are not counts")
    if (stop - start) * 8 != elements * bits:
        raise ValueError("the shape does not match the size")
    return start, stop


def _product(shape: Any, minimum: int) -> int:
    if len(shape) > 64 or not all(type(n) is int and n >= minimum for n in shape):
        raise ValueError("not a shape")
    elements: int = math.prod(shape)
    if elements > MAX_ELEMENTS:
        raise ValueError("too many elements")
    return elements


# --- GGUF -----------------------------------------------------------------------------------


def check_gguf(path: Path) -> None:
    """Raises HeaderError, naming the file, unless magic, metadata and tensor table are sound."""
    if path.stat().st_size < 24:
        raise HeaderError(f"{path.name} is not a GGUF file: it is too short.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _Gguf(data).check()
        except ValueError as error:
            raise HeaderError(f"{path.name} is not a sound GGUF file: {error}.") from error


class _Gguf:
    """A cursor over a GGUF header. Every read is checked against the end of the file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.offset = 0
        self.alignment = _GGUF_DEFAULT_ALIGNMENT

    def check(self) -> None:
        if self._take(4) != GGUF_MAGIC:
            raise ValueError("wrong magic")
        if (version := self._number("<I")) not in _GGUF_VERSIONS:
            raise ValueError(f"version {version} is not supported")
        tensors = self._count(MAX_GGUF_TENSORS, "tensors")
        keys = self._count(MAX_GGUF_KEYS, "keys")
        for _ in range(keys):
            self._key_value()
        offsets = [self._tensor() for _ in range(tensors)]
        start = -(-self.offset // self.alignment) * self.alignment
        if offsets and start + max(offsets) >= len(self.data):
            raise ValueError("a tensor lies beyond the end of the file")

    def _key_value(self) -> None:
        key = self._string(MAX_GGUF_NAME)
        kind = self._number("<I")
        if key != b"general.alignment":
            self._skip_value(kind, depth=0)
            return
        if kind != _GGUF_UINT32:
            raise ValueError("the alignment is not a uint32")
        self.alignment = self._number("<I")
        if not 8 <= self.alignment <= 65_536 or self.alignment % 8:
            raise ValueError("the alignment is absurd")

    def _skip_value(self, kind: int, depth: int) -> None:
        if kind == _GGUF_STRING:
            self._string(len(self.data))
        elif kind == _GGUF_ARRAY:
            self._skip_array(depth + 1)
        elif kind in _GGUF_SCALARS:
            self._skip(_GGUF_SCALARS[kind])
        else:
            raise ValueError(f"unknown value type {kind}")

    def _skip_array(self, depth: int) -> None:
        if depth > MAX_GGUF_DEPTH:
            raise ValueError("arrays are nested too deep")
        kind = self._number("<I")
        # every element takes at least a byte, so a longer array cannot be in this file
        length = self._count(len(self.data) - self.offset, "array elements")
        if kind in _GGUF_SCALARS:
            self._skip(_GGUF_SCALARS[kind] * length)
        else:
            for _ in range(length):
                self._skip_value(kind, depth)

    def _tensor(self) -> int:
        """The tensor's offset in the data section."""
        self._string(MAX_GGUF_NAME)
        dimensions = self._number("<I")
        if not 0 < dimensions <= 4:
            raise ValueError("a tensor has no or too many dimensions")
        _product([self._number("<Q") for _ in range(dimensions)], minimum=1)
        self._skip(4)
        offset = self._number("<Q")
        if offset % self.alignment:
            raise ValueError("a tensor is not aligned")
        return offset

    def _count(self, limit: int, what: str) -> int:
        count = self._number("<Q")
        if count > limit:
            raise ValueError(f"it claims {count} {what}")
        return count

    def _string(self, limit: int) -> bytes:
        length = self._number("<Q")
        if length > limit:
            raise ValueError("a string is too long")
        return self._take(length)

    def _number(self, form: str) -> int:
        number: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return number

    def _take(self, length: int) -> bytes:
        start = self.offset
        self._skip(length)
        return self.data[start : self.offset]

    def _skip(self, length: int) -> None:
        if length > len(self.data) - self.offset:
            raise ValueError("it ends within its header")
        self.offset += length
