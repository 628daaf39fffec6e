"""Catalogue entries of encoders and rerankers become the engine that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.catalog import ModelSpec, PathSource
from config.settings import AppConfig
from deployments.engines import Resources, encoder, reranker
from models.encoders.cross_encoder import TorchReranker
from models.encoders.encoder import TorchEncoder
from models.encoders.onnx_cross_encoder import OnnxReranker
from models.encoders.onnx_encoder import OnnxEncoder
from models.encoders.torch_judge import TorchJudge
from models.errors import ModelLoadError
from models.llama_cpp.encoder import LlamaCppEncoder
from models.llama_cpp.reranker import LlamaCppReranker
from tests.gguf_encoders import write_bert_gguf, write_qwen3_gguf
from tests.tiny_models import write_encoder, write_judge, write_reranker
from tests.tiny_onnx import write_onnx_encoder, write_onnx_reranker


def _opened(path: Path, root: Path, task: Any, engine: Any, options: dict[str, Any]) -> Any:
    spec = ModelSpec(
        id="m",
        task=task,
        engine=engine,
        source=PathSource(kind="path", path=str(path)),
        engine_options=options,
    )
    config = AppConfig(model_roots=(root,), weights_dir=root / "cache")
    open_model: Any = encoder if task == "embedding" else reranker
    return open_model(spec, config, Resources(n_threads=1))


def _gguf_encoder(path: Path) -> Path:
    return write_bert_gguf(write_encoder(path, "bert"), path / "m.gguf", "mean")


def _gguf_reranker(path: Path) -> Path:
    return write_bert_gguf(write_reranker(path, "bert"), path / "m.gguf", "rank")


def _gguf_judge(path: Path) -> Path:
    return write_qwen3_gguf(write_judge(path), path / "m.gguf")


YES_NO = {"style": "yes_no"}


@pytest.mark.parametrize(
    ("task", "engine", "write", "options", "expected"),
    [
        ("embedding", "torch", lambda p: write_encoder(p, "bert"), {}, TorchEncoder),
        ("embedding", "onnx", write_onnx_encoder, {"pooling": "cls"}, OnnxEncoder),
        ("embedding", "llama_cpp", _gguf_encoder, {"max_tokens": 99}, LlamaCppEncoder),
        ("rerank", "torch", lambda p: write_reranker(p, "bert"), {}, TorchReranker),
        ("rerank", "torch", write_judge, YES_NO, TorchJudge),
        ("rerank", "onnx", write_onnx_reranker, {}, OnnxReranker),
        ("rerank", "llama_cpp", _gguf_reranker, {}, LlamaCppReranker),
        ("rerank", "llama_cpp", _gguf_judge, YES_NO, LlamaCppReranker),
    ],
)
def test_entries_become_engines(
    tmp_path: Path, task: str, engine: str, write: Any, options: dict[str, Any], expected: type
) -> None:
    model = _opened(write(tmp_path), tmp_path, task, engine, options)
    assert type(model) is expected
    assert model.memory_bytes > 0
    model.close()


@pytest.mark.parametrize("engine", ["torch", "llama_cpp"])
def test_unknown_options_are_refused(tmp_path: Path, engine: str) -> None:
    with pytest.raises(ModelLoadError, match="not valid"):
        _opened(_gguf_judge(tmp_path), tmp_path, "rerank", engine, {"tone": "kind"})
    folder = tmp_path if engine == "torch" else tmp_path / "m.gguf"
    with pytest.raises(ModelLoadError, match="no such style"):
        _opened(folder, tmp_path, "rerank", engine, {"style": "loud"})
