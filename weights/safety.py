"""What is refused before an engine sees it: pickles, custom code, files that are not their suffix.

Loading a pickle runs code, and so does a config that names a Python class of its own. Neither is
ever needed for weights, so both are refused here, whatever the engine's own defaults are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from models.errors import ModelLoadError
from weights.headers import check_gguf, check_safetensors
from weights.selection import part_names

DATA_SUFFIXES = frozenset(
    {".safetensors", ".gguf", ".onnx", ".onnx_data", ".json", ".txt", ".model", ".jinja"}
)
"""What is taken out of an archive or a hub repository; nothing else is."""
PICKLE_SUFFIXES = frozenset(
    {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz", ".mar"}
)
_PICKLE_MAGICS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
"""Protocols 2 to 5; and zip, which is what torch.save writes around its pickle."""
_HEADER_CHECKS: dict[str, Callable[[Path], None]] = {
    ".safetensors": check_safetensors,
    ".gguf": check_gguf,
}
_CODE_KEYS = frozenset({"auto_map", "custom_code", "custom_pipelines"})
_CLASS_KEYS = frozenset({"activation_function", "activation_fn"})
MAX_FILES = 10_000
MAX_CONFIG_BYTES = 16 << 20


def stays_inside(name: str) -> bool:
    """Whether a name that others have chosen leads to something below its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def is_data_file(name: str) -> bool:
    """Whether a file of this name is weights, tokenizer, config or template."""
    return PurePosixPath(name).suffix.lower() in DATA_SUFFIXES


def check_weights(path: Path) -> None:
    """Check a weights file with its parts, or every file of a model folder.

    Reads headers and JSON configs only, so it is fast enough for every load. Raises ModelLoadError.
    """
    if path.is_file():
        for name in part_names(path.name):
            if not (path.parent / name).is_file():
                raise ModelLoadError(f"{name} is missing: a split file needs all of its parts.")
            _check_file(path.parent / name, name)
        return
    for name in file_names(path):
        _check_file(path / name, name)
        if name.endswith("config.json"):
            _check_config(_read_json(path / name, name), name)
    _check_modules(path)


def file_names(folder: Path) -> list[str]:
    """Relative names of all files below `folder`, in order.

    Raises ModelLoadError for absurdly many files, and for a linked folder, which would hide files.
    """
    names: list[str] = []
    for parent, folders, files in os.walk(folder):
        for name in folders:
            if Path(parent, name).is_symlink():
                raise ModelLoadError(f"{name} is a link to a folder, which is not allowed here.")
        names += (Path(parent, name).relative_to(folder).as_posix() for name in files)
        if len(names) > MAX_FILES:
            raise ModelLoadError("The folder has too many files to be one model.")
    return sorted(names)


def _check_file(path: Path, name: str) -> None:
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise ModelLoadError(
            f"{name} may be a pickle, which can run code when it is loaded; "
            "only safetensors, GGUF and ONNX weights are served. Delete or convert it."
        )
    with path.open("rb") as file:
        magic = file.read(4)
    if suffix in DATA_SUFFIXES and magic.startswith(_PICKLE_MAGICS):
        raise ModelLoadError(f"{name} is a pickle or a zip file, whatever its name says.")
    if check := _HEADER_CHECKS.get(suffix):
        check(path)


def _read_json(path: Path, name: str) -> Any:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ModelLoadError(f"{name} is too large to be a config.")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{name} is not JSON.") from error


def _check_config(config: Any, name: str) -> None:
    for key, value in _items(config):
        if key in _CODE_KEYS or (key == "trust_remote_code" and value):
            raise ModelLoadError(
                f"{name} asks for custom code ('{key}'), which this server never runs. If the "
                "engine knows the architecture without it, delete the key."
            )
        if key in _CLASS_KEYS and _names_foreign_class(value, "torch.nn."):
            raise ModelLoadError(f"{name} names a class outside torch.nn as '{key}'.")


def _items(config: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of nested objects; bounded by the JSON parser's own depth."""
    pending = [config]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield from node.items()
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _names_foreign_class(value: Any, prefix: str) -> bool:
    return isinstance(value, str) and "." in value and not value.startswith(prefix)


def _check_modules(folder: Path) -> None:
    """Classes that Sentence Transformers would import by name must be its own."""
    for name, types in _module_types(folder):
        for kind in types:
            if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
                raise ModelLoadError(
                    f"{name} names a module that is not part of Sentence Transformers; "
                    "this server never runs a model's own code."
                )


def _module_types(folder: Path) -> Iterator[tuple[str, list[Any]]]:
    for name in file_names(folder):
        match PurePosixPath(name).name:
            case "modules.json":
                yield (
                    name,
                    [_type_of(module) for module in _as_list(_read_json(folder / name, name))],
                )
            case "router_config.json":
                config = _read_json(folder / name, name)
                types = config.get("types", {}) if isinstance(config, dict) else {}
                yield name, list(types.values()) if isinstance(types, dict) else [types]


def _type_of(module: Any) -> Any:
    return module.get("type") if isinstance(module, dict) else None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
