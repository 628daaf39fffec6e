"""Files that clients have uploaded: a folder, or an object store that every node can reach.

Each is two objects, `<id>` and `<id>.json`; the second is written last and decides whether the file
exists. Names are ids of ours: no name of a client's becomes part of a path. All methods block.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from config.settings import AppConfig
from models.errors import StorageError
from models.stores.object_storage import as_os_errors

FILE_ID = re.compile(r"file-[0-9a-f]{32}")
META = ".json"
PARTIAL = "partial-"
ABANDONED_S = 86400.0
CHUNK_BYTES = 1 << 20


class NoSuchFileError(Exception):
    """No file of this id, or it has expired."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """`created_at` and `expires_at` in seconds since 1970; `page_count` None: no document.

    `owner` is the name of the key that came with the file, None: there were no keys.
    """

    id: str
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    content_type: str
    page_count: int | None = None
    owner: str | None = None


def new_file_id() -> str:
    return f"file-{uuid.uuid4().hex}"


class FileStore:
    """Uploaded files below one fsspec URL. Limits hold for all replicas together, loosely: two
    uploads at the same moment may both just fit."""

    def __init__(self, url: str, *, max_total_bytes: int, max_files: int) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._max_total_bytes = max_total_bytes
        self._max_files = max_files

    @classmethod
    def of(cls, config: AppConfig) -> FileStore:
        """The store that the settings describe; all replicas have the same."""
        files = config.files
        return cls(
            config.files_url, max_total_bytes=files.max_total_bytes, max_files=files.max_files
        )

    def add(self, info: FileInfo, content: BinaryIO) -> None:
        """Keep the rest of `content` under `info.id`. Raises StorageError."""
        others = self.list()
        total = sum(other.bytes for other in others) + info.bytes
        if len(others) >= self._max_files or total > self._max_total_bytes:
            raise StorageError("The space for files is used up: delete some.")
        try:
            with as_os_errors():
                self._make_root()
                self._write(info.id, content)
                with tempfile.SpooledTemporaryFile(CHUNK_BYTES) as meta:
                    meta.write(json.dumps(asdict(info)).encode())
                    meta.seek(0)
                    self._write(info.id + META, cast(BinaryIO, meta))
        except OSError as error:
            self._remove(info.id)
            raise StorageError("The file could not be stored.") from error

    def get(self, file_id: str) -> FileInfo:
        """Raises NoSuchFileError, StorageError."""
        if not FILE_ID.fullmatch(file_id):
            raise NoSuchFileError
        with _reading():
            info = _info(self._fs.cat_file(self._path(file_id + META)))
        if info is None or info.expires_at <= time.time():
            raise NoSuchFileError
        return info

    def list(self) -> list[FileInfo]:
        """All files, oldest first. Those that have expired are deleted by the way, and so is
        what an upload that died has left. Raises StorageError."""
        now = time.time()
        with _reading():
            names = list(self._names())
            paths = [self._path(name) for name in names if name.endswith(META)]
            # In one call: an object store answers all of them side by side.
            described = self._fs.cat(paths, on_error="omit") if paths else {}
        for name in _unfinished(names):
            self._remove_abandoned(name, now)
        found = [info for info in map(_info, described.values()) if info is not None]
        for info in found:
            if info.expires_at <= now:
                self._remove(info.id)
        kept = [info for info in found if info.expires_at > now]
        return sorted(kept, key=lambda info: (info.created_at, info.id))

    def delete(self, file_id: str) -> None:
        """Raises NoSuchFileError, StorageError."""
        info = self.get(file_id)
        try:
            with as_os_errors():
                self._fs.rm_file(self._path(info.id + META))
        except FileNotFoundError:
            raise NoSuchFileError from None
        except OSError as error:
            raise StorageError("The file could not be deleted.") from error
        self._remove(info.id)

    def chunks(self, file_id: str) -> Iterator[bytes]:
        """The content in pieces. Raises NoSuchFileError or StorageError before the first."""
        with self._opened(file_id) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    @contextmanager
    def local_file(self, file_id: str) -> Iterator[BinaryIO]:
        """The content as a file of this machine, copied here if need be."""
        with self._opened(file_id) as file:
            if _is_local(file):
                yield file
                return
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(file, copy, CHUNK_BYTES)
                copy.flush()
                copy.seek(0)
                yield cast(BinaryIO, copy)

    @contextmanager
    def _opened(self, file_id: str) -> Iterator[BinaryIO]:
        self.get(file_id)
        with _reading():
            file = self._fs.open(self._path(file_id), "rb")
        with file:
            yield file

    def _make_root(self) -> None:
        """A folder is for this user alone."""
        if isinstance(self._fs, LocalFileSystem):
            Path(self._root).mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            self._fs.makedirs(self._root, exist_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _names(self) -> Iterator[str]:
        try:
            paths = self._fs.ls(self._root, detail=False, refresh=True)
        except FileNotFoundError:
            return
        for path in paths:
            yield os.path.basename(str(path).rstrip("/"))

    def _write(self, name: str, content: BinaryIO) -> None:
        """Under another name first: a file is never seen half written."""
        partial = self._path(PARTIAL + uuid.uuid4().hex)
        try:
            with self._fs.open(partial, "wb") as file:
                shutil.copyfileobj(content, file, CHUNK_BYTES)
            self._fs.mv(partial, self._path(name))
        except BaseException:
            with suppress(OSError), as_os_errors():
                self._fs.rm_file(partial)
            raise

    def _remove_abandoned(self, name: str, now: float) -> None:
        """Delete what a process that died has left, not what one may still be writing."""
        with suppress(OSError), as_os_errors():
            if self._fs.modified(self._path(name)).timestamp() < now - ABANDONED_S:
                self._fs.rm_file(self._path(name))

    def _remove(self, file_id: str) -> None:
        for name in (file_id + META, file_id):
            with suppress(OSError), as_os_errors():
                self._fs.rm_file(self._path(name))


@contextmanager
def _reading() -> Iterator[None]:
    """Tells what is not there from a store that does not answer."""
    try:
        with as_os_errors():
            yield
    except FileNotFoundError:
        raise NoSuchFileError from None
    except OSError as error:
        raise StorageError("The stored files cannot be read.") from error


def _unfinished(names: list[str]) -> Iterator[str]:
    """What is half written, and content that nothing describes."""
    known = set(names)
    for name in names:
        if name.startswith(PARTIAL) or (FILE_ID.fullmatch(name) and name + META not in known):
            yield name


def _info(text: bytes) -> FileInfo | None:
    try:
        return FileInfo(**json.loads(text))
    except (ValueError, TypeError):  # none of ours
        return None


def _is_local(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except (OSError, AttributeError):
        return False
    return True
