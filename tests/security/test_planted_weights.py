"""Weights that somebody has planted, through the loader of every engine: nothing of them ever runs.

What is fetched is checked before an engine sees it. The engines are also asked without that check:
each must refuse, or not read, what it cannot trust.
"""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import shutil
import socket
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from config.catalog import ModelSpec, PathSource
from config.settings import AppConfig
from deployments import engines
from deployments.engines import Resources
from deployments.model_cache.loader import ModelLoader
from models.errors import ModelLoadError
from tests.generators import Recorder
from tests.gguf_encoders import write_bert_gguf, write_qwen3_gguf
from tests.tiny_causal import write_causal_lm
from tests.tiny_classifiers import write_classifier
from tests.tiny_documents import write_layout
from tests.tiny_gguf import write_gguf
from tests.tiny_models import write_encoder, write_judge, write_reranker
from tests.tiny_onnx import write_onnx_encoder, write_onnx_reranker
from tests.tiny_vision import write_trocr

Load = Callable[[ModelSpec, AppConfig, Resources], Any]


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.marker,)


def generator(spec: ModelSpec, config: AppConfig, resources: Resources) -> Any:
    return engines.generator(spec, config, resources, Recorder().listen)


def gguf_of(write: Callable[[Path], Path], convert: Callable[[Path, Path], Path]) -> Any:
    return lambda path: convert(write(path), path / "m.gguf").parent


LOADERS: dict[str, tuple[Load, str, str, Callable[[Path], Path]]] = {
    "torch encoder": (
        engines.encoder, "embedding", "torch", lambda path: write_encoder(path, "bert"),
    ),
    "onnx encoder": (engines.encoder, "embedding", "onnx", write_onnx_encoder),
    "gguf encoder": (
        engines.encoder, "embedding", "llama_cpp",
        gguf_of(lambda p: write_encoder(p, "bert"), lambda p, f: write_bert_gguf(p, f, "mean")),
    ),
    "torch reranker": (
        engines.reranker, "rerank", "torch", lambda path: write_reranker(path, "bert"),
    ),
    "onnx reranker": (engines.reranker, "rerank", "onnx", write_onnx_reranker),
    "gguf reranker": (
        engines.reranker, "rerank", "llama_cpp", gguf_of(write_judge, write_qwen3_gguf),
    ),
    "torch classifier": (
        engines.classifier, "classification", "torch",
        lambda path: write_classifier(path, "bert", ("a", "b")),
    ),
    "safetensors generator": (generator, "generation", "transformers", write_causal_lm),
    "gguf generator": (
        generator, "generation", "llama_cpp", lambda path: write_gguf(path / "m.gguf").parent,
    ),
    "text recognizer": (engines.text_recognizer, "ocr", "transformers", write_trocr),
    "document model": (
        engines.document_model, "ocr", "documents",
        lambda path: write_layout(path, "layoutlm", "QuestionAnswering"),
    ),
}  # fmt: skip
OWN_FORMAT = {"llama_cpp": ".gguf", "onnx": ".onnx"}
OPTIONS = {"gguf reranker": {"style": "yes_no"}, "onnx encoder": {"pooling": "cls"}}
every_loader = pytest.mark.parametrize("loader", LOADERS)
unchecked = pytest.mark.parametrize("is_checked", [True, False], ids=["fetched", "unchecked"])


@pytest.fixture(autouse=True)
def _no_line_finder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of networks that come with the package."""
    monkeypatch.setattr("models.ocr.vision_decoder.RapidLineFinder", mock.MagicMock())


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No loader looks for anything on a network."""
    tried: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        tried.append(address)
        raise OSError("not here")

    def resolve(*asked: Any, **_: Any) -> Any:
        tried.append(asked)
        raise OSError("not here")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield
    assert tried == []


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a loader's sound weights, written once."""

    @cache
    def write(loader: str) -> Path:
        path = tmp_path_factory.mktemp("sound") / "m"
        path.mkdir()
        LOADERS[loader][3](path)
        return path

    return write


def opened(loader: str, folder: Path, is_checked: bool, monkeypatch: Any) -> Any:
    """The model, by the way that a replica loads it. Raises ModelLoadError."""
    load, task, engine, _ = LOADERS[loader]
    spec = ModelSpec(
        id="planted",
        task=task,  # type: ignore[arg-type]
        engine=engine,  # type: ignore[arg-type]
        source=PathSource(kind="path", path=str(folder)),
        engine_options=OPTIONS.get(loader, {}),
    )
    config = AppConfig(model_roots=(folder.parent,), weights_dir=folder.parent / "cache")
    if not is_checked:
        monkeypatch.setattr(engines, "weights_of", lambda *_: folder)
    work = partial(load, config=config, resources=Resources(n_threads=1))
    model_loader: ModelLoader[Any] = ModelLoader(work)
    return asyncio.run(model_loader.load(spec))


def refusal(loader: str, folder: Path, is_checked: bool, monkeypatch: Any) -> str | None:
    """Why it does not load; None: it does, without what was planted."""
    try:
        opened(loader, folder, is_checked, monkeypatch).close()
    except ModelLoadError as error:
        return without(error.message, folder)
    return None


def without(message: str, folder: Path) -> str:
    assert str(folder.parent) not in message
    return message


@every_loader
@unchecked
def test_sound_weights_load(
    sound: Any, monkeypatch: pytest.MonkeyPatch, loader: str, is_checked: bool
) -> None:
    """Else the tests below prove nothing."""
    opened(loader, sound(loader), is_checked, monkeypatch).close()


@every_loader
@unchecked
def test_pickles_in_the_place_of_any_file_never_run(
    sound: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader: str, is_checked: bool
) -> None:
    marker = tmp_path / "marker"
    weights = OWN_FORMAT.get(LOADERS[loader][2], ".safetensors")
    bomb = pickle.dumps(Bomb(marker))
    files = sorted(path for path in sound(loader).rglob("*") if path.is_file())
    for number, path in enumerate(files):
        folder = shutil.copytree(sound(loader), tmp_path / str(number))
        name = str(path.relative_to(sound(loader)))
        (folder / name).write_bytes(bomb)
        message = refusal(loader, folder, is_checked, monkeypatch)
        assert message is not None or not is_checked, name
        assert message is not None or not name.endswith(weights), name
        assert not marker.exists(), name


def npy_of_objects(marker: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    return file.getvalue()


BESIDE = (
    "pytorch_model.bin",
    "model.pt",
    "scaler.joblib",
    "x.npy",
    "model.skops",
    "training_args.bin",
)
EVIL = "modeling_evil.Evil"
CODE: dict[str, dict[str, Any]] = {
    "config.json": {
        "auto_map": dict.fromkeys(
            ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer"), EVIL
        ),
        "trust_remote_code": True,
    },
    "tokenizer_config.json": {"auto_map": {"AutoTokenizer": [EVIL, None]}},
}
MODULES = [{"idx": 0, "name": "0", "path": "", "type": EVIL}]


@every_loader
@unchecked
def test_files_beside_weights_never_run(
    sound: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader: str, is_checked: bool
) -> None:
    """Pickles that some libraries would take, and code that the configuration asks for."""
    marker = tmp_path / "marker"
    folder = shutil.copytree(sound(loader), tmp_path / "m")
    for name in BESIDE:
        content = npy_of_objects(marker) if name.endswith("npy") else pickle.dumps(Bomb(marker))
        (folder / name).write_bytes(content)
    plant_code(folder, marker)
    message = refusal(loader, folder, is_checked, monkeypatch)
    assert message is not None or not is_checked
    assert not marker.exists()


@every_loader
def test_code_beside_weights_is_refused_by_name(
    sound: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader: str
) -> None:
    folder = shutil.copytree(sound(loader), tmp_path / "m")
    plant_code(folder, tmp_path / "marker")
    with pytest.raises(ModelLoadError, match=r"config\.json asks for custom code"):
        opened(loader, folder, True, monkeypatch)
    assert not (tmp_path / "marker").exists()


SOURCES: dict[str, dict[str, Any]] = {
    "hub": {"kind": "hub", "repo": "acme/tiny"},
    "hub, a commit": {"kind": "hub", "repo": "acme/tiny", "revision": "0" * 40},
    "package": {
        "kind": "package",
        "package": "tiny",
        "version": "1",
        "sha256": "0" * 64,
        "file": {"member": "m.gguf", "sha256": "0" * 64},
    },
}


@pytest.mark.parametrize("source", SOURCES)
def test_offline_nothing_is_asked_of_the_network(tmp_path: Path, source: str) -> None:
    spec = ModelSpec.model_validate(
        {"id": "m", "task": "generation", "engine": "llama_cpp", "source": SOURCES[source]}
    )
    config = AppConfig(weights_dir=tmp_path / "cache", offline=True)
    with pytest.raises(ModelLoadError, match=r"offline|not in the local"):
        engines.weights_of(spec, config)


def plant_code(folder: Path, marker: Path) -> None:
    code = f"import os\nos.mkdir({str(marker)!r})\nclass Evil: pass\n"
    for name in ("modeling_evil.py", "sitecustomize.py", "__init__.py"):
        (folder / name).write_text(code)
    for name, keys in CODE.items():
        path = folder / name
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, **keys}))
    (folder / "modules.json").write_text(json.dumps(MODULES))
