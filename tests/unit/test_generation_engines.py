"""Catalogue entries of generation models become the engine that they name, or the fitting one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.catalog import ModelSpec, PathSource
from config.settings import AppConfig
from deployments.engines import Resources, generator
from models.errors import ModelLoadError
from models.llama_cpp.engine import LlamaCppGenerator
from models.transformers_lm.engine import TransformersGenerator
from tests.generators import Recorder, request_of
from tests.tiny_causal import write_causal_lm
from tests.tiny_gguf import write_gguf


def _gguf(folder: Path) -> Path:
    return write_gguf(folder / "tiny.gguf")


def _folder_of_gguf(folder: Path) -> Path:
    return _gguf(folder).parent


def _open(path: Path, root: Path, engine: Any, recorder: Recorder) -> Any:
    source = PathSource(kind="path", path=str(path))
    spec = ModelSpec(id="m", task="generation", engine=engine, source=source)
    config = AppConfig(model_roots=(root,), weights_dir=root / "cache")
    return generator(spec, config, Resources(n_threads=1), recorder.listen)


@pytest.mark.parametrize(
    ("write", "engine", "expected"),
    [
        (_gguf, "llama_cpp", LlamaCppGenerator),
        (_gguf, "auto", LlamaCppGenerator),
        (_folder_of_gguf, "auto", LlamaCppGenerator),
        (write_causal_lm, "transformers", TransformersGenerator),
        (write_causal_lm, "auto", TransformersGenerator),
    ],
)
def test_weights_meet_their_engine(
    tmp_path: Path, write: Callable[[Path], Path], engine: str, expected: type
) -> None:
    recorder = Recorder()
    model = _open(write(tmp_path), tmp_path, engine, recorder)
    try:
        assert isinstance(model, expected)
        model.add("one", request_of("x", max_tokens=2, ignore_eos=True))
        assert recorder.take("one").usage.completion_tokens == 2
    finally:
        model.close()


def test_safetensors_are_nothing_for_llama_cpp(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="transformers"):
        _open(write_causal_lm(tmp_path), tmp_path, "llama_cpp", Recorder())


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(ModelLoadError):
        _open(tmp_path / "m", tmp_path, "auto", Recorder())
