"""Tiny weights for the tests of weights/: files, wheels and catalogue entries."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

from config.catalog import ModelSpec


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def safetensors(header: object | None = None, data: bytes = b"\0" * 8) -> bytes:
    """A file of one F32 tensor with two elements, or with another header."""
    tensor = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    raw = header if isinstance(header, bytes) else json.dumps(header or tensor).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def gguf_string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def gguf(
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    keys: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] | None = None,
    key_count: int | None = None,
    tensor_count: int | None = None,
    data: bytes = b"\0" * 64,
) -> bytes:
    """A GGUF file of one tensor; every count may lie."""
    default = (gguf_string(b"general.name") + struct.pack("<I", 8) + gguf_string(b"tiny"),)
    keys = keys or default
    tensors = (gguf_tensor(),) if tensors is None else tensors
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


def gguf_tensor(dimensions: tuple[int, ...] = (8,), offset: int = 0, n: int | None = None) -> bytes:
    count = len(dimensions) if n is None else n
    sizes = struct.pack(f"<I{len(dimensions)}Q", count, *dimensions)
    return gguf_string(b"token_embd.weight") + sizes + struct.pack("<IQ", 0, offset)


def zip_member(
    name: str, *, mode: int = 0o100644, flag_bits: int = 0, file_size: int = 4, packed: int = 4
) -> zipfile.ZipInfo:
    """A description of an archive member, true or not."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.flag_bits = flag_bits
    info.file_size, info.compress_size = file_size, packed
    return info


def wheel(folder: Path, name: str, version: str, members: dict[str, bytes]) -> Path:
    """A pure-Python wheel that pip can download from `folder` with `--find-links`."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        for member, text in texts.items():
            archive.writestr(member, text)
    return path


def spec(source: dict[str, Any], **fields: Any) -> ModelSpec:
    """A catalogue entry named "tiny"."""
    entry = {"id": "tiny", "task": "generation", "engine": "llama_cpp", "source": source}
    return ModelSpec.model_validate({**entry, **fields})


def package_spec(archive: Path, member: str, content: bytes, **file: Any) -> ModelSpec:
    """An entry whose weights are one member of a wheel made by `wheel`."""
    package, version = archive.name.split("-")[:2]
    source = {
        "kind": "package",
        "package": package.replace("_", "-"),
        "version": version,
        "sha256": sha256(archive.read_bytes()),
        "file": {"member": member, "sha256": sha256(content), **file},
    }
    return spec(source)
