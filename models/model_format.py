"""What kind of weights lie at a path, told without loading anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.errors import ModelLoadError

_PROJECTOR, _CALIBRATION = "mmproj", "imatrix"
"""Vision projectors and calibration data end in .gguf too, but are no language models."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """`path` is the GGUF file (the first part of a split one), or the folder of safetensors."""

    format: Literal["gguf", "safetensors"]
    path: Path


def model_files(path: Path) -> ModelFiles:
    """A folder that holds a GGUF file counts as that file, of several the first by name.

    Raises ModelLoadError when there is neither format.
    """
    if path.is_file():
        if _is_gguf(path):  # models made with calibration data may say so in their names
            return ModelFiles("gguf", path)
        raise ModelLoadError("a generation model is a GGUF file or a folder of safetensors")
    if not path.is_dir():
        raise ModelLoadError("the model's weights are not there")
    quantised = sorted(
        file
        for file in path.iterdir()
        if file.is_file() and _is_gguf(file) and _CALIBRATION not in file.name.lower()
    )
    if quantised:
        return ModelFiles("gguf", quantised[0])
    if any(path.glob("*.safetensors")):
        return ModelFiles("safetensors", path)
    raise ModelLoadError("the folder has neither a GGUF file nor safetensors weights")


def _is_gguf(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(".gguf") and _PROJECTOR not in name
