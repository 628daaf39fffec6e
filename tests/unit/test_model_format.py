"""GGUF or safetensors, told from names alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import ModelLoadError
from models.model_format import model_files


def folder(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).touch()
    return path


def test_a_file(tmp_path: Path) -> None:
    path = folder(tmp_path, "Model.GGUF") / "Model.GGUF"
    assert (model_files(path).format, model_files(path).path) == ("gguf", path)


def test_a_file_that_is_named_is_a_model_whatever_else_its_name_says(tmp_path: Path) -> None:
    path = folder(tmp_path, "m-imatrix-Q4_K_M.gguf") / "m-imatrix-Q4_K_M.gguf"
    assert model_files(path).path == path
    with pytest.raises(ModelLoadError):
        model_files(tmp_path)


def test_a_folder_of_safetensors(tmp_path: Path) -> None:
    folder(tmp_path, "config.json", "model-00001-of-00002.safetensors")
    assert (model_files(tmp_path).format, model_files(tmp_path).path) == ("safetensors", tmp_path)


def test_a_folder_with_a_gguf_file_is_that_file(tmp_path: Path) -> None:
    folder(tmp_path, "b-00002-of-00002.gguf", "b-00001-of-00002.gguf", "a-mmproj-f16.gguf")
    folder(tmp_path, "model.safetensors")
    assert model_files(tmp_path).path == tmp_path / "b-00001-of-00002.gguf"
    assert model_files(tmp_path).format == "gguf"


@pytest.mark.parametrize("name", ["", "missing", "pytorch_model.bin", "mmproj.gguf"])
def test_neither(tmp_path: Path, name: str) -> None:
    folder(tmp_path, "pytorch_model.bin", "mmproj.gguf", "config.json")
    with pytest.raises(ModelLoadError):
        model_files(tmp_path / name)
