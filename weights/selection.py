"""Which files of a repository make one model: the quantisation, the split parts, the folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from models.errors import ModelLoadError

QUANT_PREFERENCE = (
    "Q4_K_M", "Q4_K", "Q5_K_M", "Q5_K", "Q8_0", "Q6_K", "Q4_K_S", "Q5_K_S", "IQ4_XS", "IQ4_NL",
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q3_K_M", "Q3_K", "Q3_K_L", "Q3_K_S", "Q2_K", "F16", "BF16",
    "F32",
)  # fmt: skip
"""Best first, when the catalogue names no quantisation; other files come last, by name."""
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_COMPANIONS = re.compile(r"(^|[-._/])(mmproj|imatrix)[-._/]", re.IGNORECASE)
"""Vision projectors and calibration data end in .gguf too, but are no language models."""
_COPY = re.compile(r"consolidated[^/]*\.safetensors(\.index\.json)?", re.IGNORECASE)
"""Mistral's own layout, which their repositories have beside that of transformers."""

_TEXT_SUFFIXES = (".json", ".txt", ".model", ".jinja")
_ONNX_NAMES = ("model.onnx", "onnx/model.onnx")


@dataclass(frozen=True, slots=True)
class Selection:
    """Files by the name they get locally, and what a loader opens ("" is the folder)."""

    files: Mapping[str, str]
    entry: str


def select(names: Sequence[str], engine: str, file: str | None) -> Selection:
    """What `engine` needs of a repository that has `names`.

    `file` is a name, ":QUANT" (any case), or None for the engine's default. Raises ModelLoadError.
    """
    if engine == "onnx":
        return _select_onnx(names, file)
    if wants_gguf(engine, file) or (engine == "auto" and file is None and _only_gguf(names)):
        parts = _select_gguf(names, file)
        return Selection({PurePosixPath(name).name: name for name in parts}, _base(parts[0]))
    if file is not None:
        return Selection({_base(file): _existing(names, file)}, _base(file))
    return _select_safetensors(names)


def wants_gguf(engine: str, file: str | None) -> bool:
    """Whether it is clear, without a look at the repository, that GGUF files are meant."""
    name = file or ""
    return engine == "llama_cpp" or name.startswith(":") or name.lower().endswith(".gguf")


def _only_gguf(names: Sequence[str]) -> bool:
    return any(map(_is_gguf_model, names)) and not any(
        name.endswith(".safetensors") and not _is_export(name) for name in names
    )


def _select_safetensors(names: Sequence[str]) -> Selection:
    suffixes = (".safetensors", *_TEXT_SUFFIXES)
    chosen = [name for name in names if name.endswith(suffixes) and not _is_export(name)]
    chosen = without_copies(chosen)
    if not any(name.endswith(".safetensors") for name in chosen):
        raise ModelLoadError("the repository has no safetensors weights.")
    return Selection({name: name for name in chosen}, "")


def without_copies(names: Sequence[str]) -> list[str]:
    """The files of a folder less the copy of its weights in a layout that no engine reads."""
    kept = [name for name in names if not _COPY.fullmatch(name)]
    weights = any(name.endswith(".safetensors") and "/" not in name for name in kept)
    return kept if weights else list(names)


def _select_onnx(names: Sequence[str], file: str | None) -> Selection:
    candidates = [file] if file is not None else [name for name in _ONNX_NAMES if name in names]
    if not candidates:
        raise ModelLoadError("the repository has no model.onnx: name one in `file`.")
    model = _existing(names, candidates[0])
    data = re.compile(re.escape(model) + r"_data(_\d+)?")
    chosen = {"model.onnx": model, **{_base(n): n for n in names if data.fullmatch(n)}}
    texts = (name for name in names if name.endswith(_TEXT_SUFFIXES) and not _is_export(name))
    return Selection({**chosen, **{name: name for name in texts}}, "")


def _is_export(name: str) -> bool:
    """Whether the file belongs to another format's copy of the model."""
    return PurePosixPath(name).parts[0] in ("onnx", "openvino", "coreml", "original")


def _select_gguf(names: Iterable[str], file: str | None) -> list[str]:
    """One file, or all parts of a split one in order."""
    files = sorted(name for name in names if name.lower().endswith(".gguf"))
    if file is not None and not file.startswith(":"):
        return _with_parts(files, _existing(files, file))
    models = [name for name in files if _is_gguf_model(name)]
    wanted = [file[1:].upper()] if file else QUANT_PREFERENCE
    for quant in wanted:
        if found := [name for name in models if _has_quant(name, quant)]:
            return _with_parts(models, min(found, key=lambda name: (len(name), name)))
    if file is not None or not models:
        raise ModelLoadError(f"the repository has no GGUF file {file or ''}".rstrip() + ".")
    return _with_parts(models, models[0])


def _is_gguf_model(name: str) -> bool:
    return name.lower().endswith(".gguf") and not _COMPANIONS.search(name)


def _has_quant(name: str, quant: str) -> bool:
    """Whether `quant` stands alone in the name: "Q4_K" is neither in "Q4_K_M" nor in "IQ4_K"."""
    return re.search(rf"(^|[-._/]){re.escape(quant)}([-./]|$)", name.upper()) is not None


def _with_parts(names: Sequence[str], name: str) -> list[str]:
    return [_existing(names, part) for part in part_names(name)]


def part_names(name: str) -> list[str]:
    """All parts of a split GGUF file, in order; the name itself when it is not that of a part."""
    split = _SPLIT.search(name)
    if split is None:
        return [name]
    stem, count = name[: split.start()], int(split[2])
    return [f"{stem}-{n:05d}-of-{split[2]}.gguf" for n in range(1, min(count, 1000) + 1)]


def _existing(names: Iterable[str], name: str) -> str:
    if name not in names:
        raise ModelLoadError(f"the repository has no file {name}.")
    return name


def _base(name: str) -> str:
    return PurePosixPath(name).name
