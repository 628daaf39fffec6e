"""Hub sources against a fake hub, and against a real Hugging Face cache on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from config.catalog import HubSource, ModelSpec
from models.errors import ModelLoadError
from tests.unit.weights_samples import gguf, safetensors, sha256, spec
from weights.cache import WeightsCache
from weights.fetch import fetch, locate
from weights.hub import HubUnavailableError, HuggingFaceHub, _reporting_bar, fetch_hub
from weights.pip_download import Progress

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "acme/tiny"
GGUF_FILES = {"t-Q8_0.gguf": gguf(), "t-Q4_K_M.gguf": gguf(version=2), "config.json": b"{}"}
TORCH_FILES = {
    "model.safetensors": safetensors(),
    "config.json": b"{}",
    "pytorch_model.bin": b"\x80\x04",
    "modeling_evil.py": b"raise SystemExit",
}


@dataclass
class FakeHub:
    """A hub whose repository is a dict, with a snapshot folder as its cache."""

    remote: dict[str, bytes]
    folder: Path
    reachable: bool = True
    known: list[str] | None = None
    calls: list[str] = field(default_factory=list)

    def cached(self, repo: str, revision: str) -> Path | None:
        self.calls.append("cached")
        return self.folder if self.folder.exists() else None

    def listed(self, repo: str, revision: str) -> list[str] | None:
        return self.known

    def files(self, repo: str, revision: str) -> list[str]:
        self.calls.append("files")
        if not self.reachable:
            raise HubUnavailableError("the model hub cannot be reached")
        return list(self.remote)

    def download(
        self, repo: str, revision: str, names: Sequence[str], progress: Progress | None
    ) -> Path:
        self.calls.append(f"download {' '.join(names)}")
        for name in names:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(self.remote[name])
        return self.folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


def hub_source(**fields: str) -> HubSource:
    return HubSource.model_validate({"kind": "hub", "repo": REPO, **fields})


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


# --- against a fake hub ---------------------------------------------------------------------


def test_only_the_chosen_quantisation_is_downloaded(tmp_path: Path, target: Path) -> None:
    hub = FakeHub(GGUF_FILES, tmp_path / "snapshot")
    entry = fetch_hub(hub_source(), "llama_cpp", target, offline=False, client=hub)
    assert entry == "t-Q4_K_M.gguf"
    assert names_in(target) == ["t-Q4_K_M.gguf"]
    assert hub.calls == ["cached", "files", "download t-Q4_K_M.gguf"]


def test_a_snapshot_on_this_machine_is_used_without_network(tmp_path: Path, target: Path) -> None:
    hub = FakeHub({}, tmp_path / "snapshot", reachable=False)
    write(hub.folder, TORCH_FILES)
    assert fetch_hub(hub_source(), "torch", target, offline=False, client=hub) == ""
    assert hub.calls == ["cached"]
    assert names_in(target) == ["config.json", "model.safetensors"], "no code, no pickles"


def test_a_file_that_the_snapshot_lacks_is_downloaded(tmp_path: Path, target: Path) -> None:
    hub = FakeHub(GGUF_FILES, tmp_path / "snapshot")
    write(hub.folder, {"t-Q8_0.gguf": gguf()})
    source = hub_source(file=":q4_k_m")
    assert fetch_hub(source, "llama_cpp", target, offline=False, client=hub) == "t-Q4_K_M.gguf"
    assert hub.calls[-1] == "download t-Q4_K_M.gguf"


def test_a_snapshot_without_all_shards_is_completed(tmp_path: Path, target: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    remote = {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-1.safetensors": safetensors(),
        "model-2.safetensors": safetensors(),
    }
    hub = FakeHub(remote, tmp_path / "snapshot")
    write(hub.folder, {name: remote[name] for name in list(remote)[:2]})
    fetch_hub(hub_source(), "torch", target, offline=False, client=hub)
    assert names_in(target) == sorted(remote)


PARTIAL = [
    ("torch", {"2_Dense/model.safetensors": safetensors(), "config.json": b"{}"}),
    ("torch", {"model.safetensors": safetensors(), "config.json": b"{}"}),
    ("onnx", {"onnx/model.onnx": b"graph", "config.json": b"{}"}),
]


@pytest.mark.parametrize(("engine", "here"), PARTIAL, ids=["weights", "tokenizer", "data"])
def test_what_an_interrupted_download_left_is_not_taken_for_the_model(
    tmp_path: Path, target: Path, engine: str, here: dict[str, bytes]
) -> None:
    remote = {
        "model.safetensors": safetensors(), "2_Dense/model.safetensors": safetensors(),
        "config.json": b"{}", "tokenizer.json": b"{}",
        "onnx/model.onnx": b"graph", "onnx/model.onnx_data": b"data",
    }  # fmt: skip
    hub = FakeHub(remote, tmp_path / "snapshot", known=list(remote))
    write(hub.folder, here)
    with pytest.raises(HubUnavailableError, match="offline"):
        fetch_hub(hub_source(), engine, target, offline=True, client=hub)
    fetch_hub(hub_source(), engine, target, offline=False, client=hub)
    wanted = {"model.safetensors"} if engine == "torch" else {"model.onnx", "model.onnx_data"}
    assert wanted | {"config.json", "tokenizer.json"} <= set(names_in(target))


def test_a_whole_snapshot_needs_nothing_that_no_engine_takes(tmp_path: Path, target: Path) -> None:
    known = [*TORCH_FILES, "onnx/config.json", "onnx/model.onnx"]
    hub = FakeHub({}, tmp_path / "snapshot", reachable=False, known=known)
    write(hub.folder, {name: TORCH_FILES[name] for name in ("model.safetensors", "config.json")})
    assert fetch_hub(hub_source(), "torch", target, offline=True, client=hub) == ""


@pytest.mark.parametrize("name", ["../../evil.json", "/evil/evil.json", "a\\..\\evil.json"])
def test_names_that_lead_outside_become_no_links(tmp_path: Path, target: Path, name: str) -> None:
    write(tmp_path, {"evil.json": b"{}"})
    remote = {**TORCH_FILES, name: b"{}"}
    for known in (None, list(remote)):
        hub = FakeHub(remote, tmp_path / "snapshot", known=known)
        if known:
            write(hub.folder, TORCH_FILES)
        with pytest.raises(ModelLoadError, match="outside of its folder"):
            fetch_hub(hub_source(), "torch", target, offline=False, client=hub)
    assert names_in(target) == []


def test_offline_a_missing_snapshot_is_said(tmp_path: Path, target: Path) -> None:
    hub = FakeHub(GGUF_FILES, tmp_path / "snapshot")
    with pytest.raises(HubUnavailableError, match="offline"):
        fetch_hub(hub_source(), "llama_cpp", target, offline=True, client=hub)
    assert hub.calls == ["cached"]


def test_an_unreachable_hub_is_said(tmp_path: Path, target: Path) -> None:
    hub = FakeHub(GGUF_FILES, tmp_path / "snapshot", reachable=False)
    with pytest.raises(HubUnavailableError, match="cannot be reached"):
        fetch_hub(hub_source(), "llama_cpp", target, offline=False, client=hub)


def test_a_damaged_blob_is_refused_by_name(tmp_path: Path, target: Path) -> None:
    hub = FakeHub({}, tmp_path / "snapshot")
    blob = tmp_path / sha256(gguf())
    blob.write_bytes(gguf()[:-1] + b"\1")
    hub.folder.mkdir()
    (hub.folder / "t.gguf").symlink_to(blob)
    with pytest.raises(ModelLoadError, match=f"t.gguf .* expected sha256 {sha256(gguf())}"):
        fetch_hub(hub_source(), "llama_cpp", target, offline=True, client=hub)


# --- against a real Hugging Face cache ------------------------------------------------------


@pytest.fixture
def hf_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of huggingface_hub, whose hub is a closed port of this machine."""
    folder = tmp_path / "hf"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    return folder


def add_snapshot(cache: Path, files: dict[str, bytes], revision: str = "main") -> Path:
    """The layout that huggingface_hub writes: refs, blobs named by digest, links to them."""
    repository = cache / "models--acme--tiny"
    snapshot = repository / "snapshots" / COMMIT
    write(repository, {f"refs/{revision}": COMMIT.encode()})
    for name, content in files.items():
        write(repository / "blobs", {sha256(content): content})
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(repository / "blobs" / sha256(content))
    return repository


def hub_spec(engine: str = "llama_cpp", task: str = "generation", **fields: str) -> ModelSpec:
    return spec({"kind": "hub", "repo": REPO, **fields}, engine=engine, task=task)


def test_a_real_cache_is_loaded_offline(hf_cache: Path, tmp_path: Path) -> None:
    add_snapshot(hf_cache, GGUF_FILES)
    cache = WeightsCache(tmp_path / "weights")
    entry = hub_spec(file=":Q8_0")
    assert locate(entry, cache=cache) is None
    path = fetch(entry, cache=cache, offline=True)
    assert path is not None
    assert path.read_bytes() == GGUF_FILES["t-Q8_0.gguf"]
    assert locate(entry, cache=cache) == path
    assert cache.verify(entry) == []


def test_a_real_snapshot_folder_is_loaded_offline(hf_cache: Path, tmp_path: Path) -> None:
    add_snapshot(hf_cache, TORCH_FILES)
    path = fetch(hub_spec("torch", "embedding"), cache=WeightsCache(tmp_path / "w"), offline=True)
    assert path is not None
    assert names_in(path) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(("revision", "found"), [("v1", True), (COMMIT, True), ("main", False)])
def test_the_revision_is_honoured(
    hf_cache: Path, tmp_path: Path, revision: str, found: bool
) -> None:
    add_snapshot(hf_cache, GGUF_FILES, revision="v1")
    entry, cache = hub_spec(revision=revision), WeightsCache(tmp_path / "weights")
    if found:
        assert fetch(entry, cache=cache, offline=True) is not None
        return
    with pytest.raises(ModelLoadError, match="not in the local Hugging Face cache"):
        fetch(entry, cache=cache, offline=True)


def test_weights_that_left_the_hugging_face_cache_are_not_there(
    hf_cache: Path, tmp_path: Path
) -> None:
    repository = add_snapshot(hf_cache, GGUF_FILES)
    cache = WeightsCache(tmp_path / "weights")
    fetch(hub_spec(), cache=cache, offline=True)
    for blob in (repository / "blobs").iterdir():
        blob.unlink()
    assert locate(hub_spec(), cache=cache) is None


def test_removing_a_model_leaves_the_shared_cache_alone(hf_cache: Path, tmp_path: Path) -> None:
    repository = add_snapshot(hf_cache, GGUF_FILES)
    cache = WeightsCache(tmp_path / "weights")
    fetch(hub_spec(), cache=cache, offline=True)
    assert cache.remove(hub_spec())
    assert len(names_in(repository / "blobs")) == len(GGUF_FILES)


def test_custom_code_of_a_snapshot_is_refused(hf_cache: Path, tmp_path: Path) -> None:
    config = json.dumps({"auto_map": {"AutoModel": "modeling_evil.Evil"}}).encode()
    add_snapshot(hf_cache, {**TORCH_FILES, "config.json": config})
    with pytest.raises(ModelLoadError, match=r"config\.json asks for custom code"):
        fetch(hub_spec("torch", "embedding"), cache=WeightsCache(tmp_path / "w"), offline=True)


def test_an_unreachable_hub_gives_no_address_away(hf_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError) as caught:
        fetch(hub_spec(), cache=WeightsCache(tmp_path / "weights"))
    assert "the model hub cannot be reached for 'acme/tiny'" in caught.value.message
    assert "127.0.0.1" not in caught.value.message


def test_a_name_that_the_hub_would_never_have_is_said(hf_cache: Path) -> None:
    with pytest.raises(ModelLoadError, match="not a valid repository name"):
        HuggingFaceHub().cached("acme/a--b..c", "main")


def test_an_interrupted_download_into_a_real_cache_is_known(hf_cache: Path, tmp_path: Path) -> None:
    """huggingface_hub writes down what a repository has before it downloads anything."""
    repository = add_snapshot(hf_cache, TORCH_FILES)
    names = [*TORCH_FILES, "tokenizer.json"]
    file = TreeCacheEntry(1, blob_id="0" * 40, lfs_sha256=None, lfs_size=None, xet_hash=None)
    write_tree_cache(str(repository), COMMIT, dict.fromkeys(names, file))
    assert sorted(HuggingFaceHub().listed(REPO, "main") or []) == sorted(names)
    entry, cache = hub_spec("torch", "embedding"), WeightsCache(tmp_path / "w")
    with pytest.raises(ModelLoadError, match="not in the local Hugging Face cache"):
        fetch(entry, cache=cache, offline=True)
    add_snapshot(hf_cache, {"tokenizer.json": b"[]"})
    assert fetch(entry, cache=cache, offline=True) is not None


def answer(status: int, kind: type[HfHubHTTPError] = HfHubHTTPError) -> HfHubHTTPError:
    request = httpx2.Request("GET", "http://127.0.0.1:9/secret")
    return kind("http://127.0.0.1:9/secret", response=httpx2.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (answer(401), "answers 401 for 'acme/tiny': check the token"),
        (answer(503), r"answers 503 for 'acme/tiny'\."),
        (answer(403, GatedRepoError), "is gated: ask for access"),
        (answer(404, RepositoryNotFoundError), "is not on the hub, or private"),
        (answer(404, RevisionNotFoundError), "has no revision 'main'"),
        (httpx2.ConnectError("http://127.0.0.1:9/secret"), r"cannot be reached .*ConnectError"),
        (RuntimeError("http://127.0.0.1:9/secret"), r"RuntimeError.*the log has the reason"),
        (OSError(28, "No space left on device", "/secret"), "or written: No space left on device"),
    ],
    ids=str,
)
def test_each_failure_of_a_download_is_named_and_tells_no_address(
    hf_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def download(*_: object, local_files_only: bool = False, **__: object) -> str:
        raise LocalEntryNotFoundError("none") if local_files_only else error

    monkeypatch.setattr(HuggingFaceHub, "files", lambda *_: list(GGUF_FILES))
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ModelLoadError, match=message) as caught:
        fetch(hub_spec(), cache=WeightsCache(tmp_path / "weights"))
    assert "secret" not in caught.value.message


def test_downloaded_bytes_are_reported_once() -> None:
    seen: list[tuple[int, int | None]] = []
    bar_class = _reporting_bar(lambda *state: seen.append(state))
    transfer = bar_class(desc="Downloading bytes", total=0)
    written = bar_class(desc="Reconstructing (incomplete total...)", total=0)
    written.total += 10
    transfer.update(4)
    written.update(4)
    written.refresh()
    written.set_description("done")
    assert seen == [(4, 10)]
