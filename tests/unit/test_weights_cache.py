from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from config.catalog import ModelSpec
from tests.unit.weights_samples import sha256, spec
from weights.cache import WeightsCache

FILES = {"model.gguf": b"weights", "sub/config.json": b"{}"}


def source(name: str = "some-model") -> ModelSpec:
    return spec(
        {"kind": "package", "package": name, "version": "1", "sha256": "0" * 64,
         "file": {"member": "m.gguf", "sha256": "1" * 64}}
    )  # fmt: skip


def place(cache: WeightsCache, entry: ModelSpec, files: dict[str, bytes] | None = None) -> Path:
    with cache.lock(entry), cache.staging(entry) as staging:
        for name, content in (files or FILES).items():
            path = staging / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return cache.place(entry, staging / "files", "model.gguf")


@pytest.fixture
def cache(tmp_path: Path) -> WeightsCache:
    return WeightsCache(tmp_path / "weights")


def test_placed_files_are_located_with_their_digests(cache: WeightsCache) -> None:
    path = place(cache, source())
    assert path.read_bytes() == b"weights"
    assert cache.locate(source()) == path
    assert cache.size(source()) == len(b"weights") + len(b"{}")
    manifest = cache.manifest(source())
    assert manifest is not None
    assert {name: record.sha256 for name, record in manifest.files.items()} == {
        name: sha256(content) for name, content in FILES.items()
    }


def test_an_unknown_source_is_nowhere_and_creates_nothing(cache: WeightsCache) -> None:
    assert cache.locate(source()) is None
    assert cache.manifest(source()) is None
    assert cache.verify(source()) == []
    assert cache.size(source()) == 0
    assert list(cache.entries()) == []
    assert not cache.root.exists()


def test_names_from_outside_never_become_folders(cache: WeightsCache) -> None:
    entry = spec({"kind": "hub", "repo": "acme/evil"}, id="a/../../b")
    place(cache, entry)
    folders = {path.name for path in cache.root.rglob("*") if path.is_dir()}
    assert folders == {"entries", "staging", "locks", "files", "sub", cache.key(entry)}


def test_a_changed_pin_is_another_entry_and_an_alias_is_not(cache: WeightsCache) -> None:
    place(cache, source())
    assert cache.locate(source("other-model")) is None
    twin = source().model_copy(update={"id": "twin", "aliases": ("x",)})
    assert cache.locate(twin) is not None


def test_engines_do_not_share_a_hub_entry(cache: WeightsCache) -> None:
    hub = {"kind": "hub", "repo": "acme/m"}
    torch = spec(hub, engine="torch", task="rerank")
    assert cache.key(torch) != cache.key(spec(hub, engine="onnx", task="rerank"))


def test_nothing_half_made_is_ever_located(cache: WeightsCache) -> None:
    def interrupted() -> None:
        with cache.staging(source()) as staging:
            (staging / "files").mkdir()
            (staging / "files" / "model.gguf").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert cache.locate(source()) is None
    assert list((cache.root / "staging").iterdir()) == []


def test_what_a_crash_left_behind_is_swept_by_the_next_holder(cache: WeightsCache) -> None:
    place(cache, source())
    left = cache.root / "staging" / f"{cache.key(source())}-dead"
    other = cache.root / "staging" / f"{cache.key(source('other'))}-alive"
    left.mkdir()
    other.mkdir()
    with cache.lock(source()):
        assert not left.exists()
        assert other.exists()


def test_placing_again_replaces(cache: WeightsCache) -> None:
    place(cache, source())
    path = place(cache, source(), {"model.gguf": b"new"})
    assert path.read_bytes() == b"new"
    assert cache.verify(source()) == []


def test_one_changed_byte_is_found_and_named(cache: WeightsCache) -> None:
    path = place(cache, source())
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"weightz")
    os.utime(path, ns=times)
    (damage,) = cache.verify(source())
    assert (damage.file, damage.expected) == ("model.gguf", sha256(b"weights"))
    assert damage.found == sha256(b"weightz")
    assert sha256(b"weights") in str(damage)
    assert cache.changed(source()) == [], "an unchanged time is trusted, so that loads are fast"


def test_a_changed_time_is_hashed_again(cache: WeightsCache) -> None:
    path = place(cache, source())
    os.utime(path, ns=(1, 1))
    assert cache.changed(source()) == []
    path.write_bytes(b"weightz")
    assert [damage.file for damage in cache.changed(source())] == ["model.gguf"]


@pytest.mark.parametrize("content", [None, b"", b"weights and more"])
def test_missing_or_cut_files_count_as_not_there(
    cache: WeightsCache, content: bytes | None
) -> None:
    path = place(cache, source())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert cache.locate(source()) is None
    assert [damage.file for damage in cache.verify(source())] == ["model.gguf"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {"a": {}}}', '{"files": 1}'])
def test_a_broken_manifest_counts_as_not_there(cache: WeightsCache, text: str) -> None:
    path = place(cache, source())
    (path.parent.parent / "manifest.json").write_text(text)
    assert cache.locate(source()) is None
    assert place(cache, source()) == path


def test_remove_and_clear(cache: WeightsCache) -> None:
    place(cache, source())
    place(cache, source("other"))
    assert cache.remove(source())
    assert not cache.remove(source())
    assert cache.locate(source()) is None
    assert len(cache.entries()) == 1
    assert cache.clear() == 1
    assert list(cache.entries()) == []


def test_clear_takes_what_interrupted_downloads_left_and_nothing_that_is_under_way(
    cache: WeightsCache,
) -> None:
    staging = cache.root / "staging"
    with cache.lock(source()), cache.staging(source()) as filling:
        left = staging / f"{cache.key(source('unknown'))}-dead"
        left.mkdir()
        assert cache.clear() == 0
        assert filling.exists()
        assert not left.exists()


def test_a_read_only_cache_can_be_read(cache: WeightsCache) -> None:
    path = place(cache, source())
    for folder in ("entries", "locks", "staging", "."):
        (cache.root / folder).chmod(0o500)
    try:
        assert cache.locate(source()) == path
    finally:
        for folder in (".", "entries", "locks", "staging"):
            (cache.root / folder).chmod(0o700)


def test_the_lock_keeps_others_out(cache: WeightsCache) -> None:
    order: list[str] = []

    def second() -> None:
        with cache.lock(source()):
            order.append("second")

    thread = threading.Thread(target=second)
    with cache.lock(source()):
        thread.start()
        thread.join(timeout=0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    with cache.lock(source()), cache.lock(source("other")):
        pass
