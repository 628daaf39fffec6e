"""The store of what clients have fitted: atomic, durable, shared by processes, never a path."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models.errors import InvalidInputError, ModelNotFoundError, StorageError
from models.stores import storage as files
from models.stores.artefacts import CURRENT, MANIFEST, Artefact, ArtefactStore, _folder
from models.stores.storage import NEW as UNFINISHED

PROJECT = Path(__file__).parents[2]
OLD, NEW = b"old" * 1000, b"new" * 1000


def publish(store: ArtefactStore, data: bytes = OLD, name: str = "pump") -> Any:
    return store.publish(name, {"size": len(data)}, {"state": data, "more": data[::-1]})


def complete(artefact: Artefact) -> bytes:
    """The data of a version that is whole."""
    data = artefact.files["state"]
    assert artefact.manifest["size"] == len(data)
    assert artefact.files["more"] == data[::-1]
    return data


def versions(store: ArtefactStore) -> list[Path]:
    """Every version's folder of every name, crashes' leavings included."""
    return [path for path in (store.storage.root / "models").glob("*/*") if path.is_dir()]


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "store")


def test_versions_count_up_and_only_the_last_stays(store: ArtefactStore) -> None:
    assert [publish(store, bytes([i])).version for i in range(1, 4)] == [1, 2, 3]
    assert complete(store.read("pump")) == bytes([3])
    assert store.pointer("pump").version == 3
    assert store.manifest("pump")[1]["size"] == 1
    assert len(versions(store)) == 1


def test_names_have_folders_of_their_own(store: ArtefactStore) -> None:
    for name in ("a", "A", "../a", "a/b", "\ud800", ""):
        publish(store, name.encode("utf-8", "surrogatepass") or b"-", name)
    assert len(versions(store)) == 6
    assert complete(store.read("../a")) == b"../a"
    assert all(len(path.parent.name) == 64 for path in versions(store))
    assert sorted(int(str(manifest["size"])) for _, manifest in store.manifests()) == [
        1,
        1,
        1,
        3,
        3,
        4,
    ]


def test_unknown_names_leave_no_trace(store: ArtefactStore, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    for call in (store.read, store.pointer, store.manifest, store.delete):
        with pytest.raises(ModelNotFoundError):
            call("gone")
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_readable_by_others(store: ArtefactStore) -> None:
    publish(store)
    assert all(
        path.stat().st_mode & 0o077 == 0
        for path in (store.storage.root, store.storage.root / "locks")
    )


# --- crashes ---------------------------------------------------------------------------------

CRASH = """
import os, signal, sys
from pathlib import Path
from models.stores import artefacts, storage

root, action, point = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = artefacts.ArtefactStore(root)
steps = 0

def die_at(point_before):
    global steps
    steps += 1
    if steps == point:
        point_before()
        os.kill(os.getpid(), signal.SIGKILL)

def stepping(module, name, before=lambda *_: None):
    original = getattr(module, name)
    def call(*args, **options):
        die_at(lambda: before(*args))
        return original(*args, **options)
    setattr(module, name, call)

stepping(storage, "_write_file", lambda path, data: path.write_bytes(data[: len(data) // 2]))
stepping(os, "fsync")
stepping(os, "replace")
stepping(os, "unlink")
stepping(storage.shutil, "rmtree")
if action == "publish":
    data = b"new" * 1000
    store.publish("pump", {"size": len(data)}, {"state": data, "more": data[::-1]})
else:
    store.delete("pump")
print("acknowledged", steps, flush=True)
"""


def killed_at(root: Path, action: str, point: int) -> str:
    """What the process said before it was killed at its `point`-th step."""
    run = subprocess.run(
        [sys.executable, "-c", CRASH, str(root), action, str(point)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, -9), run.stderr
    return run.stdout


def test_a_kill_while_publishing_leaves_a_whole_version(tmp_path: Path) -> None:
    found = []
    for point in range(1, 99):
        root = tmp_path / str(point)
        publish(ArtefactStore(root))
        said = killed_at(root, "publish", point)
        after = ArtefactStore(root)
        found.append(complete(after.read("pump")))
        assert len(versions(after)) == 1
        assert publish(after, b"next").version == (2 if found[-1] == OLD else 3)
        if said:
            break
    assert found[-1] == NEW
    assert found == sorted(found, reverse=True)  # old until the switch, then new
    assert {OLD, NEW} == set(found)
    assert len(found) > 10


def test_a_kill_while_publishing_the_first_version_leaves_it_whole_or_nothing(
    tmp_path: Path,
) -> None:
    absent = 0
    for point in (1, 2, 5, 7, 9, 11, 99):
        root = tmp_path / str(point)
        said = killed_at(root, "publish", point)
        after = ArtefactStore(root)
        try:
            assert complete(after.read("pump")) == NEW
        except ModelNotFoundError:
            assert not said
            assert list((after.storage.root / "models").iterdir()) == []
            absent += 1
    assert 0 < absent < 7


def test_a_kill_while_deleting_leaves_it_whole_or_nothing(tmp_path: Path) -> None:
    found = []
    for point in range(1, 9):
        root = tmp_path / str(point)
        publish(ArtefactStore(root))
        said = killed_at(root, "delete", point)
        after = ArtefactStore(root)
        left = list((after.storage.root / "models").iterdir())
        found.append(bool(left))
        if left:
            assert complete(after.read("pump")) == OLD
        if said:
            break
    assert found[-1] is False
    assert found == sorted(found, reverse=True)


def test_all_is_durable_before_the_switch(
    store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill does not lose what the kernel has; a power cut does, unless it was synced."""
    synced: list[str] = []
    before_switch: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real_sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        before_switch.extend(synced)
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    pointer = publish(store)
    assert sorted(before_switch) == sorted(
        ["state", "more", MANIFEST, CURRENT + UNFINISHED, pointer.folder]
    )
    name = _folder("pump")
    assert synced[len(before_switch) :] == [name, "models"]
    store.delete("pump")
    assert synced[-1] == name


# --- full and broken disks -------------------------------------------------------------------


def failing(original: Callable[..., Any], at: int, number: int) -> Callable[..., Any]:
    calls = 0

    def call(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(number, os.strerror(number))
        return original(*args, **options)

    return call


@pytest.mark.parametrize(
    ("step", "at", "left"),
    [
        *(("_write_file", at, OLD) for at in (1, 2, 3, 4)),
        ("_sync_folder", 1, OLD),
        ("_sync_folder", 2, NEW),  # switched, but perhaps not yet durable: not acknowledged
        ("_sync_folder", 3, NEW),
    ],
)
def test_a_full_disk_leaves_a_whole_version(
    store: ArtefactStore, monkeypatch: pytest.MonkeyPatch, step: str, at: int, left: bytes
) -> None:
    publish(store)
    with monkeypatch.context() as patch:
        patch.setattr(files, step, failing(getattr(files, step), at, errno.ENOSPC))
        with pytest.raises(StorageError) as caught:
            publish(store, NEW)
    assert "/" not in caught.value.message
    assert complete(store.read("pump")) == left
    assert publish(store, b"next").version > 1
    assert len(versions(store)) == 1


def test_a_read_only_store_still_serves(
    store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    real = os.open

    def read_only(path: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "read-only")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", read_only)
    again = ArtefactStore(store.storage.root)
    assert complete(again.read("pump")) == OLD
    with pytest.raises(StorageError):
        publish(again, NEW)
    with pytest.raises(StorageError):
        again.delete("pump")
    assert complete(again.read("pump")) == OLD


def test_a_file_that_cannot_be_read_is_a_storage_error(store: ArtefactStore) -> None:
    publish(store)
    (path,) = (store.storage.root / "models").rglob("state")
    path.unlink()
    with pytest.raises(StorageError):
        store.read("pump")
    assert publish(store, NEW).version == 2
    assert complete(store.read("pump")) == NEW


# --- what others may have written ------------------------------------------------------------

BROKEN_POINTERS = [
    b"",
    b"\xff",
    b"[]",
    b"null",
    b"{}",
    b'{"version": "x"}',
    b"7",
    json.dumps({"version": 1, "folder": "../../etc", "digest": "0" * 64}).encode(),
    json.dumps({"version": 1, "folder": "0" * 32, "digest": "x"}).encode(),
    json.dumps({"version": 1, "folder": 5, "digest": "0" * 64}).encode(),
]


@pytest.mark.parametrize("text", BROKEN_POINTERS)
def test_a_broken_pointer_is_an_error_and_destroys_nothing(
    store: ArtefactStore, text: bytes
) -> None:
    publish(store)
    (path,) = (store.storage.root / "models").rglob(CURRENT)
    path.write_bytes(text)
    again = ArtefactStore(store.storage.root)
    assert len(versions(again)) == 1
    with pytest.raises(StorageError):
        again.read("pump")
    assert list(again.manifests()) == []
    assert complete_after_refit(again) == NEW


def complete_after_refit(store: ArtefactStore) -> bytes:
    publish(store, NEW)
    return complete(store.read("pump"))


@pytest.mark.parametrize("text", [b"{}", b"[]", b"\xff", b'{"digests": {"../state": "0"}}'])
def test_a_changed_manifest_is_an_error(store: ArtefactStore, text: bytes) -> None:
    publish(store)
    (path,) = (store.storage.root / "models").rglob(MANIFEST)
    path.write_bytes(text)
    with pytest.raises(StorageError, match="digest"):
        store.read("pump")
    assert list(store.manifests()) == []


def test_digests_cannot_name_other_folders(store: ArtefactStore) -> None:
    """Also when the manifest's own digest is right."""
    publish(store)
    (path,) = (store.storage.root / "models").rglob(MANIFEST)
    text = json.dumps({"digests": {"../../x": "0" * 64}}).encode()
    path.write_bytes(text)
    (current,) = (store.storage.root / "models").rglob(CURRENT)
    fields = json.loads(current.read_bytes())
    current.write_text(json.dumps({**fields, "digest": hashlib.sha256(text).hexdigest()}))
    with pytest.raises(StorageError, match="cannot be read"):
        store.read("pump")


def test_links_are_neither_followed_nor_removed(store: ArtefactStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    publish(store)
    (folder,) = (store.storage.root / "models").iterdir()
    (folder / ("0" * 32)).symlink_to(outside)
    (store.storage.root / "models" / ("1" * 64)).symlink_to(outside)
    publish(ArtefactStore(store.storage.root), NEW)
    assert (outside / "file").read_text() == "kept"
    assert len(list(store.manifests())) == 1


# --- several processes -----------------------------------------------------------------------

WORK = """
import sys
from pathlib import Path
from models.stores.artefacts import ArtefactStore
from models.errors import ModelNotFoundError

store, seen = ArtefactStore(Path(sys.argv[1])), 0
for turn in range(60):
    data = bytes(f"{sys.argv[2]} {turn} " * 50, "ascii")
    mine = store.publish("pump", {"size": len(data)}, {"state": data, "more": data[::-1]}).version
    if sys.argv[3] == "keep":
        assert mine > seen, "versions go up"
        assert store.pointer("pump").version >= mine, "read after acknowledgement"
    seen = mine
    try:
        found = store.read("pump")
        assert found.files["more"] == found.files["state"][::-1], "one whole version"
        assert found.manifest["size"] == len(found.files["state"]), "one whole version"
        if sys.argv[3] == "delete" and turn % 3 == 0:
            store.delete("pump")
    except ModelNotFoundError:
        assert sys.argv[3] == "delete"
"""


@pytest.mark.parametrize("mode", ["keep", "delete"])
def test_processes_share_a_store(store: ArtefactStore, mode: str) -> None:
    root = str(store.storage.root)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, root, str(number), mode],
            cwd=PROJECT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    errors = [worker.communicate()[1] for worker in workers]
    assert errors == ["", "", ""]
    if mode == "keep":
        assert store.pointer("pump").version == 180
        assert len(versions(store)) == 1


# --- versions, aliases, names -----------------------------------------------------------------


def test_the_last_versions_stay_and_are_read_by_number(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path, keep=3)
    for number in range(1, 6):
        publish(store, bytes([number]))
    assert [pointer.version for pointer, _ in store.versions("pump")] == [5, 4, 3]
    assert [complete(store.read("pump", version)) for version in (3, 4, 5)] == [
        bytes([number]) for number in (3, 4, 5)
    ]
    assert len(versions(store)) == 3
    with pytest.raises(ModelNotFoundError, match="pump@2"):
        store.read("pump", 2)
    again = ArtefactStore(tmp_path, keep=2)
    assert complete(again.read("pump", 3)) == bytes([3]), "a sweep removes no kept version"
    publish(again, bytes([6]))
    assert [pointer.version for pointer, _ in again.versions("pump")] == [6, 5]


def test_deleting_a_version_makes_the_one_before_current(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path, keep=3)
    for number in (1, 2, 3):
        publish(store, bytes([number]))
    store.delete("pump", 3)
    assert complete(store.read("pump")) == bytes([2])
    assert publish(store, bytes([4])).version == 4, "numbers are never given twice"
    store.delete("pump", 1)
    with pytest.raises(ModelNotFoundError):
        store.delete("pump", 1)
    store.delete("pump", 4)
    store.delete("pump", 2)
    with pytest.raises(ModelNotFoundError):
        store.pointer("pump")
    assert list((tmp_path / "models").iterdir()) == []


def test_an_alias_is_a_name_of_its_own(store: ArtefactStore) -> None:
    publish(store)
    store.set_alias("live", "pump")
    store.set_alias("live", "pump@1")
    assert store.alias_of("live") == "pump@1"
    assert store.alias_of("pump") is None
    assert store.aliases() == {"live": "pump@1"}
    assert len(list(store.manifests())) == 1
    assert ArtefactStore(store.storage.root).aliases() == {"live": "pump@1"}
    with pytest.raises(ModelNotFoundError):
        store.pointer("live")
    with pytest.raises(InvalidInputError):
        publish(store, name="live")
    with pytest.raises(InvalidInputError):
        store.set_alias("pump", "other")
    store.delete("live")
    assert store.aliases() == {}
    assert complete(store.read("pump")) == OLD


def test_a_rename_moves_every_version_and_edits_its_manifest(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path, keep=2)
    for number in (1, 2):
        publish(store, bytes([number]))
    publish(store, NEW, "other")
    with pytest.raises(InvalidInputError):
        store.rename("pump", "other", dict)
    with pytest.raises(ModelNotFoundError):
        store.rename("gone", "new", dict)
    store.rename("pump", "new", lambda manifest: {**manifest, "name": "new"})
    assert [(p.version, m["name"]) for p, m in store.versions("new")] == [(2, "new"), (1, "new")]
    assert complete(store.read("new", 1)) == bytes([1])
    with pytest.raises(ModelNotFoundError):
        store.pointer("pump")
    assert publish(store, NEW, "new").version == 3


def test_an_amendment_keeps_the_files_and_is_a_version(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path, keep=2)
    publish(store)

    def edit(manifest: Mapping[str, object]) -> Mapping[str, object]:
        assert not fits.submit(publish, store, NEW).done()  # waits for its turn
        return {**manifest, "threshold": 7}

    with ThreadPoolExecutor() as fits:
        assert store.amend("pump", edit).version == 2
    assert store.manifest("pump", 2)[1]["threshold"] == 7
    assert complete(store.read("pump", 2)) == OLD
    assert complete(store.read("pump", 3)) == NEW
    with pytest.raises(ModelNotFoundError):
        store.amend("gone", dict)


def test_a_pointer_of_the_first_form_is_read(store: ArtefactStore) -> None:
    publish(store)
    (path,) = (store.storage.root / "models").rglob(CURRENT)
    fields = json.loads(path.read_bytes())
    path.write_text(json.dumps({key: fields[key] for key in ("version", "folder", "digest")}))
    assert complete(store.read("pump")) == OLD
    assert publish(store, NEW).version == 2
