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
_COMPANIONS = re.compile(r"(^|[-._/])(mmproj|imatrix)[-._]", re.IGNORECASE)
"""Vision projectors and calibration data end in .gguf too, but are no language models."""

TEXT_SUFFIXES = (".json", ".txt", ".model", ".jinja")
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
    if engine == "llama_cpp" or (file or "").lower().endswith(".gguf"):
        parts = _select_gguf(names, file)
        return Selection({PurePosixPath(name).name: name for name in parts}, _base(parts[0]))
    if file is not None:
        return Selection({_base(file): _existing(names, file)}, _base(file))
    return _select_safetensors(names)


def _select_safetensors(names: Sequence[str]) -> Selection:
    suffixes = (".safetensors", *TEXT_SUFFIXES)
    chosen = [name for name in names if name.endswith(suffixes) and not _is_export(name)]
    if not any(name.endswith(".safetensors") for name in chosen):
        raise ModelLoadError("the repository has no safetensors weights.")
    return Selection({name: name for name in chosen}, "")


def _select_onnx(names: Sequence[str], file: str | None) -> Selection:
    candidates = [file] if file is not None else [name for name in _ONNX_NAMES if name in names]
    if not candidates:
        raise ModelLoadError("the repository has no model.onnx: name one in `file`.")
    model = _existing(names, candidates[0])
    chosen = {"model.onnx": model}
    if f"{model}_data" in names:
        chosen[f"{_base(model)}_data"] = f"{model}_data"
    texts = (name for name in names if name.endswith(TEXT_SUFFIXES) and not _is_export(name))
    return Selection({**chosen, **{name: name for name in texts}}, "")


def _is_export(name: str) -> bool:
    """Whether the file belongs to another format's copy of the model."""
    return PurePosixPath(name).parts[0] in ("onnx", "openvino", "coreml", "original")


def _select_gguf(names: Iterable[str], file: str | None) -> list[str]:
    """One file, or all parts of a split one in order."""
    models = sorted(name for name in names if _is_gguf_model(name))
    if file is not None and not file.startswith(":"):
        return _with_parts(models, _existing(models, file))
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
    split = _SPLIT.search(name)
    if split is None:
        return [name]
    stem, count = name[: split.start()], int(split[2])
    parts = [f"{stem}-{n:05d}-of-{split[2]}.gguf" for n in range(1, min(count, 1000) + 1)]
    return [_existing(names, part) for part in parts]


def _existing(names: Iterable[str], name: str) -> str:
    if name not in names:
        raise ModelLoadError(f"the repository has no file {name}.")
    return name


def _base(name: str) -> str:
    return PurePosixPath(name).name
