"""What is refused of a model folder, and where `path` sources may lie."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from models.errors import ModelLoadError
from tests.unit.weights_samples import gguf, safetensors, spec
from weights.cache import WeightsCache
from weights.fetch import fetch, locate
from weights.safety import check_weights, is_data_file


class Payload:
    """Unpickling this creates the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def model_folder(folder: Path, **files: object) -> Path:
    """A folder of sound weights; further files as text, bytes or JSON, "__" standing for "."."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(safetensors())
    (folder / "config.json").write_text('{"model_type": "bert"}')
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def refusal(path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        check_weights(path)
    assert str(path) not in caught.value.message
    return caught.value.message


# --- pickles --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.gguf", "model.onnx", "scaler.json", "vocab.txt"]
)
def test_a_pickle_in_disguise_is_refused(tmp_path: Path, name: str, protocol: int) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Payload(marker), protocol))
    assert f"{name} is a pickle" in refusal(path)
    assert not marker.exists()


def test_a_torch_archive_in_disguise_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([1]))
    path = tmp_path / "model.safetensors"
    path.write_bytes(content.getvalue())
    assert "model.safetensors is a pickle or a zip file" in refusal(path)


@pytest.mark.parametrize(
    "name", ["pytorch_model__bin", "x__pt", "x__PTH", "x__ckpt", "x__pkl", "x__joblib", "x__npy"]
)
def test_pickle_suffixes_are_refused_even_beside_sound_weights(tmp_path: Path, name: str) -> None:
    folder = model_folder(tmp_path / "m", **{name: b"anything"})
    assert name.replace("__", ".") in refusal(folder)


def test_a_broken_header_is_named(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", model__safetensors=safetensors()[:-1])
    assert "model.safetensors is cut" in refusal(folder)


# --- custom code ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {"config__json": {"auto_map": {"AutoModel": "modeling_evil.Evil"}}},
        {"config__json": {"text_config": {"auto_map": {"AutoModel": "modeling_evil.Evil"}}}},
        {"config__json": {"layers": [{"custom_code": "x"}]}},
        {"config__json": {"custom_pipelines": {"evil": {"impl": "evil.Evil"}}}},
        {"config__json": {"trust_remote_code": True}},
        {"tokenizer_config__json": {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}},
        {"preprocessor_config__json": {"auto_map": {"AutoProcessor": "evil.Evil"}}},
    ],
    ids=str,
)
def test_configs_that_ask_for_custom_code_are_refused(
    tmp_path: Path, files: dict[str, object]
) -> None:
    message = refusal(model_folder(tmp_path / "m", **files))
    assert next(iter(files)).replace("__", ".") in message
    assert "custom code" in message


@pytest.mark.parametrize(
    "modules",
    [
        [{"idx": 0, "path": "", "type": "modeling_x.Evil"}],
        [{"path": "", "type": "sentence_transformers.models.Transformer"}, {"type": "os.system"}],
        [{"path": ""}],
        [{"type": 3}],
        ["sentence_transformers_evil.Evil"],
        {"type": "evil.Evil"},
        None,
    ],
    ids=str,
)
def test_modules_of_foreign_classes_are_refused(tmp_path: Path, modules: object) -> None:
    folder = model_folder(tmp_path / "m", modules__json=modules)
    assert "modules.json names a module that is not part of" in refusal(folder)


def test_router_types_are_checked_too(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", router_config__json={"types": {"query_0": "evil.E"}})
    assert "router_config.json" in refusal(folder)


def test_activation_classes_come_from_torch(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", config__json={"activation_function": "evil.Act"})
    assert "outside torch.nn" in refusal(folder)


def test_ordinary_folders_pass(tmp_path: Path) -> None:
    folder = model_folder(
        tmp_path / "m",
        modules__json=[{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}],
        config__json={"activation_function": "gelu_new", "trust_remote_code": False},
        dense_config__json={"activation_function": "torch.nn.modules.activation.Tanh"},
        README__md="a model",
        modeling_unused__py="raise SystemExit",
    )
    check_weights(folder)


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, b'{"a": "\xff"}'], ids=["cut", "deep", "bytes"]
)
def test_a_broken_config_is_named(tmp_path: Path, text: str | bytes) -> None:
    assert "config.json is not JSON" in refusal(model_folder(tmp_path / "m", config__json=text))


def test_only_data_is_taken_along() -> None:
    taken = ["a/model.safetensors", "m.GGUF", "tokenizer.json", "vocab.txt", "spiece.model"]
    left = ["evil.py", "pytorch_model.bin", "README.md", ".gitattributes", "lib.so", "x.pkl"]
    assert [name for name in taken + left if is_data_file(name)] == taken


# --- path sources ---------------------------------------------------------------------------


def path_refusal(tmp_path: Path, path: Path | str, *roots: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        fetch(spec({"kind": "path", "path": str(path)}), cache=WeightsCache(tmp_path), roots=roots)
    assert "'tiny'" in caught.value.message
    assert str(tmp_path) not in caught.value.message
    return caught.value.message


def test_a_file_below_a_root_is_located(tmp_path: Path) -> None:
    path = tmp_path / "models" / "tiny.gguf"
    path.parent.mkdir()
    path.write_bytes(gguf())
    for written in (str(path), "tiny.gguf"):
        entry = spec({"kind": "path", "path": written})
        found = locate(entry, cache=WeightsCache(tmp_path / "c"), roots=[tmp_path, path.parent])
        assert found == path.resolve()


def test_a_folder_below_a_linked_root_is_located(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "disk" / "m")
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    entry = spec({"kind": "path", "path": "m"})
    roots = [tmp_path / "models"]
    assert locate(entry, cache=WeightsCache(tmp_path / "c"), roots=roots) == folder.resolve()


def test_outside_the_roots_looks_like_missing(tmp_path: Path) -> None:
    outside = model_folder(tmp_path / "outside")
    root = tmp_path / "models"
    root.mkdir()
    missing = path_refusal(tmp_path, root / "none", root)
    assert path_refusal(tmp_path, outside, root) == missing
    assert path_refusal(tmp_path, "../outside", root) == missing
    assert path_refusal(tmp_path, root / ".." / "outside", root) == missing
    assert path_refusal(tmp_path, outside) == missing
    assert path_refusal(tmp_path, "~nobody-of-this-name/m", root) == missing


def test_links_out_of_the_roots_are_refused(tmp_path: Path) -> None:
    outside = model_folder(tmp_path / "outside")
    root = tmp_path / "models"
    inside = model_folder(root / "m")
    (root / "linked").symlink_to(outside)
    assert "nothing at the path" in path_refusal(tmp_path, root / "linked", root)
    (inside / "vocab.txt").symlink_to(outside / "config.json")
    assert "vocab.txt is a link that leads outside" in path_refusal(tmp_path, inside, root)
    (inside / "vocab.txt").unlink()
    (inside / "1_Pooling").symlink_to(outside)
    assert "1_Pooling is a link to a folder" in path_refusal(tmp_path, inside, root)


def test_every_part_of_a_split_file_is_checked(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2))
    first.write_bytes(gguf())
    assert "00002-of-00002.gguf is missing" in path_refusal(tmp_path, first, tmp_path)
    second.write_bytes(gguf(magic=b"GGML"))
    assert "00002-of-00002.gguf is not a sound GGUF" in path_refusal(tmp_path, first, tmp_path)
    second.write_bytes(gguf())
    entry = spec({"kind": "path", "path": first.name})
    assert locate(entry, cache=WeightsCache(tmp_path / "c"), roots=[tmp_path]) == first
    root = tmp_path / "models"
    root.mkdir()
    for part in (first, second):
        (root / part.name).symlink_to(part)
    first.rename(root / first.name)
    assert "00002-of-00002.gguf is a link that leads outside" in path_refusal(
        tmp_path, root / first.name, root
    )


def test_a_linked_file_keeps_the_name_that_tells_its_format(tmp_path: Path) -> None:
    """As the files of the Hugging Face cache, whose targets are named by digests."""
    blob, link = tmp_path / "blobs" / "0123abcd", tmp_path / "snapshots" / "m.gguf"
    for path in (blob, link):
        path.parent.mkdir()
    blob.write_bytes(gguf())
    link.symlink_to(blob)
    entry = spec({"kind": "path", "path": "snapshots/m.gguf"})
    assert locate(entry, cache=WeightsCache(tmp_path / "c"), roots=[tmp_path]) == link
    blob.write_bytes(gguf(magic=b"GGML"))
    assert "m.gguf is not a sound GGUF" in path_refusal(tmp_path, link, tmp_path)


def test_a_local_pickle_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", pytorch_model__bin=b"x")
    assert "pytorch_model.bin may be a pickle" in path_refusal(tmp_path, folder, tmp_path)
