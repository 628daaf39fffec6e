"""Durable files under one root, which processes and nodes may share.

A root is a folder, also of a network file system, or a URL of an object store that fsspec knows.
Paths are relative, with "/", and made by the callers from digests and random names, never from
what a client sent. What goes wrong is an OSError, FileNotFoundError for what is not there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

NEW = ".new"
"""Ends the name of a file that is not complete."""
PIECE_BYTES = 8 << 20
Copied = Callable[[int], None]


def ignore(n_bytes: int) -> None:
    """For who does not want to hear."""
    del n_bytes


class Storage(Protocol):
    """What the stores of artefacts, streams and jobs need. Every write is durable on return."""

    def read(self, path: str) -> bytes: ...

    def exists(self, path: str) -> bool: ...

    def add(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write a folder of files that nobody looks for yet."""

    def replace(self, path: str, data: bytes) -> None:
        """Write a file in one step: readers see what was there, or all of `data`."""

    def upload(self, source: Path, path: str) -> None:
        """Copy a file of any size from this machine, to a path that nobody looks for yet."""

    def download(self, path: str, target: Path, copied: Copied = ignore) -> None:
        """Copy a file of any size to this machine; `copied` hears of its bytes, piece by piece."""

    def remove(self, path: str) -> None: ...

    def remove_folder(self, folder: str) -> None:
        """Best effort; a folder that is not there is no error."""

    def folders(self, folder: str) -> list[str]:
        """Names of the sub-folders; none when there is no such folder."""

    def files(self, folder: str) -> list[str]: ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Exclusive among threads, processes and nodes; freed when its holder dies."""

    def try_lock(self, name: str) -> AbstractContextManager[bool]:
        """As `lock`, but gives False at once when another holds it."""


def open_storage(root: str | Path) -> Storage:
    """Raises OSError when there is no such root and none can be made."""
    text = str(root)
    if "://" in text and not text.startswith("file://"):
        from models.stores.object_storage import ObjectStorage

        return ObjectStorage(text)
    return LocalStorage(Path(os.path.expanduser(text.removeprefix("file://"))))


class LocalStorage:
    """POSIX files: fsync, rename and flock. A root that is read-only can still be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._locks = root / "locks"
        try:
            for folder in (root, self._locks):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            if not root.is_dir():
                raise

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def add(self, folder: str, files: Mapping[str, bytes]) -> None:
        path = self.root / folder
        try:
            path.mkdir(parents=True, mode=0o700)
            for name, data in files.items():
                _write_file(path / name, data)
            _sync_folder(path)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def replace(self, path: str, data: bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = target.with_name(target.name + NEW)
        try:
            _write_file(unfinished, data)
            os.replace(unfinished, target)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        for changed in (target.parent, target.parent.parent):
            _sync_folder(changed)

    def upload(self, source: Path, path: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
        _sync_folder(target.parent)

    def download(self, path: str, target: Path, copied: Copied = ignore) -> None:
        with (self.root / path).open("rb") as source, target.open("wb") as copy:
            while piece := source.read(PIECE_BYTES):
                copy.write(piece)
                copied(len(piece))

    def remove(self, path: str) -> None:
        target = self.root / path
        target.unlink()
        _sync_folder(target.parent)

    def remove_folder(self, folder: str) -> None:
        shutil.rmtree(self.root / folder, ignore_errors=True)

    def folders(self, folder: str) -> list[str]:
        """Real folders only: a symbolic link is never followed and never removed."""
        path = self.root / folder
        if not path.is_dir():
            return []
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def files(self, folder: str) -> list[str]:
        path = self.root / folder
        if not path.is_dir():
            return []
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        descriptor = self._open_lock(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        descriptor = self._open_lock(name)
        try:
            yield _locked_at_once(descriptor)
        finally:
            os.close(descriptor)

    def _open_lock(self, name: str) -> int:
        return os.open(self._locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _locked_at_once(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
