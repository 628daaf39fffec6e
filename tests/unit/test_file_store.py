"""Uploaded files on a disk and in an object store, under limits of number, size and time."""

from __future__ import annotations

import io
import json
import os
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from deployments.file_store import FileInfo, FileStore, NoSuchFileError, new_file_id
from models.errors import StorageError


def info(size: int, **fields: Any) -> FileInfo:
    now = int(time.time())
    known = FileInfo(new_file_id(), size, now, now + 1000, "a.pdf", "ocr", "application/pdf", 2)
    return replace(known, **fields)


@pytest.fixture(params=["disk", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    url = str(tmp_path / "files") if request.param == "disk" else f"memory://{uuid.uuid4().hex}"
    return FileStore(url, max_total_bytes=100, max_files=3)


def add(store: FileStore, content: bytes, **fields: Any) -> FileInfo:
    added = info(len(content), **fields)
    store.add(added, io.BytesIO(content))
    return added


def test_what_is_added_is_found_by_another_replica(store: FileStore) -> None:
    added = add(store, b"content", filename="../../etc/passwd")
    other = FileStore(store._fs.unstrip_protocol(store._root), max_total_bytes=1, max_files=1)
    assert other.get(added.id) == added
    assert other.list() == [added]
    assert b"".join(other.chunks(added.id)) == b"content"
    with other.local_file(added.id) as file:
        assert file.read() == b"content"
        assert file.fileno() >= 0


def test_nothing_is_named_by_clients_and_nothing_half_written_stays(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path / "files"), max_total_bytes=100, max_files=3)
    added = add(store, b"content", filename="..\\..\\x;touch y")

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("the disk of the client")

    with pytest.raises(StorageError) as caught:
        store.add(info(5), Broken(b"other"))
    assert "disk" not in caught.value.message
    names = sorted(path.name for path in tmp_path.rglob("*"))
    assert names == sorted(["files", added.id, f"{added.id}.json"])


def test_what_a_dead_process_left_half_written_is_deleted_in_time(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path), max_total_bytes=100, max_files=3)
    old, new = tmp_path / "partial-1", tmp_path / "partial-2"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 2 * 86400))
    assert store.list() == []
    assert not old.exists()
    assert new.exists()


def test_content_that_a_dead_process_has_not_described_is_deleted_in_time(tmp_path: Path) -> None:
    """What is described stays however old it is, what is being uploaded has a day."""
    store = FileStore(str(tmp_path), max_total_bytes=100, max_files=3)
    kept = add(store, b"kept")
    old, new, other = (tmp_path / name for name in (new_file_id(), new_file_id(), "notes.txt"))
    for path in (old, new, other):
        path.write_bytes(b"bare")
    for path in (old, other, tmp_path / kept.id):
        os.utime(path, (0, time.time() - 2 * 86400))
    assert store.list() == [kept]
    assert not old.exists()
    assert new.exists()
    assert other.exists()
    assert b"".join(store.chunks(kept.id)) == b"kept"


def test_deleted_files_are_gone(store: FileStore) -> None:
    added = add(store, b"content")
    store.delete(added.id)
    assert store.list() == []
    for use in (store.get, store.delete, lambda file_id: list(store.chunks(file_id))):
        with pytest.raises(NoSuchFileError):
            use(added.id)


def test_expired_files_are_gone_and_make_room(store: FileStore) -> None:
    old = add(store, bytes(100), expires_at=int(time.time()) - 1)
    with pytest.raises(NoSuchFileError):
        store.get(old.id)
    new = add(store, bytes(100))
    assert store.list() == [new]
    assert not store._fs.exists(f"{store._root}/{old.id}")


def test_the_quota_holds_for_bytes_and_for_files(store: FileStore) -> None:
    add(store, bytes(60))
    with pytest.raises(StorageError, match="used up"):
        add(store, bytes(41))
    add(store, bytes(40))
    add(store, b"")
    with pytest.raises(StorageError, match="used up"):
        add(store, b"")


@pytest.mark.parametrize(
    "file_id",
    ["", ".", "..", "../x", "file-", "file-../../../../etc/passwd", "*", "/etc/passwd",
     "file-" + "0" * 31, "file-" + "0" * 33, "FILE-" + "0" * 32, "file-" + "0" * 32 + "\n",
     "file-" + "0" * 32],
)  # fmt: skip
def test_ids_that_are_none(store: FileStore, file_id: str) -> None:
    kept = add(store, b"kept")
    for use in (store.get, store.delete, lambda name: list(store.chunks(name))):
        with pytest.raises(NoSuchFileError):
            use(file_id)
    assert store.list() == [kept]


def test_what_others_leave_in_the_folder_is_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    store = FileStore(str(folder), max_total_bytes=100, max_files=3)
    added = add(store, b"content")
    (folder / "notes.txt").write_text("mine")
    (folder / f"file-{'0' * 32}.json").write_text(json.dumps({"id": "x"}))
    (folder / f"file-{'1' * 32}.json").write_text("not JSON")
    assert store.list() == [added]
    assert isinstance(store._fs, fsspec.AbstractFileSystem)


class OtherError(Exception):
    """What some packages of object stores raise."""


@pytest.mark.parametrize("error", [PermissionError, OtherError])
def test_a_store_that_does_not_answer_is_no_missing_file(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    added = add(store, b"content")

    def fail(*_: object, **__: object) -> None:
        raise error("secret bucket")

    with monkeypatch.context() as full:
        full.setattr(type(store._fs), "mv", fail)
        with pytest.raises(StorageError, match="stored"):
            store.add(info(1), io.BytesIO(b"x"))
    assert store.list() == [added]
    for name in ("cat_file", "ls", "rm_file"):
        monkeypatch.setattr(type(store._fs), name, fail)
    for use in (
        lambda: store.get(added.id),
        store.list,
        lambda: store.delete(added.id),
        lambda: store.add(info(1), io.BytesIO(b"x")),
        lambda: list(store.chunks(added.id)),
    ):
        with pytest.raises(StorageError) as caught:
            use()
        assert "secret" not in caught.value.message


def test_a_file_that_could_not_be_deleted_is_not_called_deleted(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = add(store, b"content")
    with monkeypatch.context() as broken:
        broken.setattr(type(store._fs), "rm_file", _read_only)
        with pytest.raises(StorageError, match="deleted"):
            store.delete(added.id)
    assert store.get(added.id) == added


def _read_only(*_: object) -> None:
    raise OSError(30, "Read-only file system")


def test_a_folder_of_files_is_for_its_user_alone(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path / "data" / "files"), max_total_bytes=100, max_files=3)
    add(store, b"content")
    assert (tmp_path / "data" / "files").stat().st_mode & 0o077 == 0
