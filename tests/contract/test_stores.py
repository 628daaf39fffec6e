"""What every store of artefacts does, on POSIX files and on objects."""

from __future__ import annotations

import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from models.errors import ModelNotFoundError, StorageError
from models.stores import object_storage
from models.stores.artefacts import ArtefactStore
from models.stores.object_storage import ObjectStorage

KINDS = ("files", "objects")


@pytest.fixture(params=KINDS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "files" else f"memory://{uuid.uuid4().hex}"


def publish(store: ArtefactStore, data: bytes, name: str = "pump") -> int:
    return store.publish(name, {"size": len(data)}, {"state": data, "more": data[::-1]}).version


def whole(store: ArtefactStore, version: int | None = None) -> bytes:
    found = store.read("pump", version)
    assert found.manifest["size"] == len(found.files["state"])
    assert found.files["more"] == found.files["state"][::-1]
    return found.files["state"]


def test_another_instance_sees_versions_at_once(root: str) -> None:
    one, two = ArtefactStore(root, keep=2), ArtefactStore(root, keep=2)
    assert [publish(one, b"a"), publish(two, b"b"), publish(one, b"c")] == [1, 2, 3]
    assert whole(two) == b"c"
    assert whole(two, 2) == b"b"
    with pytest.raises(ModelNotFoundError):
        two.read("pump", 1)
    two.set_alias("live", "pump@2")
    assert one.alias_of("live") == "pump@2"
    two.rename("pump", "well", dict)
    with pytest.raises(ModelNotFoundError):
        one.pointer("pump")
    one.delete("well", 3)
    assert two.pointer("well").version == 2
    two.delete("well")
    assert list(one.manifests()) == []


class FullStorage:
    """Writes fail from the `after`-th on, as on a disk without space."""

    def __init__(self, inner: Any, after: int) -> None:
        self._inner, self._left = inner, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _write(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise OSError(28, "no space left")

    def add(self, folder: str, files: Any) -> None:
        self._write()
        self._inner.add(folder, files)

    def replace(self, path: str, data: bytes) -> None:
        self._write()
        self._inner.replace(path, data)


@pytest.mark.parametrize("after", [0, 1])
def test_a_full_disk_leaves_the_version_before(root: str, after: int) -> None:
    store = ArtefactStore(root)
    publish(store, b"old")
    real = store.storage
    store.storage = FullStorage(real, after)
    with pytest.raises(StorageError):
        publish(store, b"new")
    store.storage = real
    assert whole(store) == b"old"
    assert publish(store, b"next") == 2
    assert whole(ArtefactStore(root)) == b"next"


def test_writers_of_one_name_take_turns(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "PAUSE_S", 0.002)
    faults: list[BaseException] = []
    given: list[int] = []

    def work(number: int) -> None:
        try:
            store = ArtefactStore(root)
            for turn in range(8):
                given.append(publish(store, f"{number} {turn}".encode()))
                whole(store)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert sorted(given) == list(range(1, 25)), "no version is given twice, none is lost"
    assert ArtefactStore(root).pointer("pump").version == 24


def test_only_one_holds_a_lock_of_objects() -> None:
    storage = ObjectStorage(f"memory://{uuid.uuid4().hex}")
    with (
        storage.try_lock("a") as first,
        storage.try_lock("a") as second,
        storage.try_lock("b") as other,
    ):
        assert (first, second, other) == (True, False, True)
    with storage.try_lock("a") as again:
        assert again


def test_the_ticket_of_a_dead_holder_runs_out() -> None:
    storage = ObjectStorage(f"memory://{uuid.uuid4().hex}")
    storage.replace("locks/a/dead", b'{"at": 1000.0}')
    with storage.try_lock("a") as mine:
        assert mine
    assert storage.files("locks/a") == []


def test_a_living_holder_keeps_its_lock_beyond_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(object_storage, "RENEW_S", 0.001)
    monkeypatch.setattr(time, "time", lambda: now[0])
    storage = ObjectStorage(f"memory://{uuid.uuid4().hex}")
    with storage.try_lock("a") as first:
        assert first
        [ticket] = storage.files("locks/a")
        renewed = threading.Event()
        write = storage.replace

        def watched(path: str, data: bytes) -> None:
            write(path, data)
            if path.endswith(ticket) and json.loads(data)["at"] == now[0]:
                renewed.set()

        monkeypatch.setattr(storage, "replace", watched)
        now[0] += 2 * object_storage.LEASE_S
        assert renewed.wait(60)
        with ObjectStorage(f"memory:/{storage._root}").try_lock("a") as second:
            assert not second
    with storage.try_lock("a") as again:
        assert again


def test_a_lock_that_is_given_back_is_not_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "RENEW_S", 0.0)
    storage = ObjectStorage(f"memory://{uuid.uuid4().hex}")
    for _ in range(50):
        with storage.try_lock("a") as mine:
            assert mine
        assert storage.files("locks/a") == []


def test_a_renewal_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "RENEW_S", 0.001)
    storage = ObjectStorage(f"memory://{uuid.uuid4().hex}")
    tried = [threading.Event(), threading.Event()]

    def broken(path: str, data: bytes) -> None:
        tried[tried[0].is_set()].set()
        raise OSError("the store is away")

    with storage.try_lock("a") as mine:
        assert mine
        monkeypatch.setattr(storage, "replace", broken)
        assert all(event.wait(60) for event in tried)
    assert storage.files("locks/a") == []


def test_a_lock_that_was_taken_away_can_be_given_back() -> None:
    storage = ObjectStorage(f"memory://{uuid.uuid4().hex}")
    with storage.try_lock("a") as mine:
        assert mine
        storage.remove_folder("locks/a")
    assert storage.files("locks/a") == []


def test_what_no_package_knows_is_a_storage_error() -> None:
    with pytest.raises(StorageError):
        ArtefactStore("nosuchstore://bucket/prefix")
