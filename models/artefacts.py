"""Where what clients have fitted is kept: one folder per name, one sub-folder per version.

    <root>/locks/0 … f                         taken by writers only, one of sixteen by name
    <root>/models/<sha256 of the name>/current             which version is the current one
    <root>/models/<sha256 of the name>/<random>/manifest.json, <files>

A version is written and fsynced, then `current` is replaced in one step; whatever `current` does
not name is the rest of a crash and is swept. Readers take no lock: when files vanish under them,
they read `current` again. Names never become paths, and what `current` says is checked before use.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from models.errors import ModelNotFoundError, StorageError

T = TypeVar("T")

LOGGER = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CURRENT = "current"
FOLDER_PATTERN = re.compile(r"[0-9a-f]{32}")
DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
READ_ATTEMPTS = 20
"""Times that a version may be replaced while one call reads it."""
CANNOT_WRITE = "The fitted model could not be stored."
CANNOT_READ = "The stored model cannot be read."


@dataclass(frozen=True, slots=True)
class Pointer:
    """What `current` says. `digest` is the sha256 of the manifest, which has those of the files."""

    version: int
    folder: str
    digest: str

    @staticmethod
    def parsed(text: bytes) -> Pointer:
        """Raises ValueError, KeyError or TypeError."""
        fields = json.loads(text)
        pointer = Pointer(int(fields["version"]), fields["folder"], fields["digest"])
        if not FOLDER_PATTERN.fullmatch(pointer.folder):
            raise ValueError("folder")
        if not DIGEST_PATTERN.fullmatch(pointer.digest):
            raise ValueError("digest")
        return pointer


@dataclass(frozen=True, slots=True)
class Artefact:
    """One complete version, its files checked against their digests."""

    pointer: Pointer
    manifest: Mapping[str, object]
    files: Mapping[str, bytes]


class ArtefactStore:
    """Safe for threads and processes that share `root`, also over a network file system's locks.

    The constructor raises StorageError when there is no root and none can be made.
    """

    def __init__(self, root: Path) -> None:
        self._models = root / "models"
        self._locks = root / "locks"
        try:
            for folder in (self._models, self._locks):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            if not self._models.is_dir():
                raise StorageError("The folder of fitted models cannot be used.") from error
        self._sweep_all()

    def pointer(self, name: str) -> Pointer:
        """The current version. Raises ModelNotFoundError or StorageError."""
        pointer = _read_pointer(self._folder(name))
        if pointer is None:
            raise ModelNotFoundError(name)
        return pointer

    def manifest(self, name: str) -> tuple[Pointer, Mapping[str, object]]:
        """Of the current version. Raises ModelNotFoundError or StorageError."""
        return self._current(name, lambda folder, at: (at, _read_manifest(folder, at)))

    def read(self, name: str) -> Artefact:
        """The current version, complete. Raises ModelNotFoundError or StorageError."""
        return self._current(name, _read)

    def _current(self, name: str, read: Callable[[Path, Pointer], T]) -> T:
        """What `read` finds in the current version, also when that changes meanwhile."""
        pointer = self.pointer(name)
        for _ in range(READ_ATTEMPTS):
            try:
                return read(self._folder(name), pointer)
            except OSError:
                before, pointer = pointer, self.pointer(name)
                if pointer == before:
                    break
        raise StorageError(CANNOT_READ)

    def manifests(self) -> Iterator[tuple[Pointer, Mapping[str, object]]]:
        """Of every name, in no order; what cannot be read is logged and left out."""
        for folder in _subfolders(self._models):
            try:
                pointer = _read_pointer(folder)
                if pointer is not None:
                    yield pointer, _read_manifest(folder, pointer)
            except (OSError, StorageError):
                LOGGER.warning("a stored model cannot be read and is not listed")

    def publish(
        self, name: str, manifest: Mapping[str, object], files: Mapping[str, bytes]
    ) -> Pointer:
        """Make these files and this manifest the current version, and remove the one before.

        `digests` is added to the manifest. Raises StorageError; the version before stays then.
        """
        digests = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
        text = json.dumps({**manifest, "digests": digests}, sort_keys=True).encode()
        digest = hashlib.sha256(text).hexdigest()
        folder = self._folder(name)
        try:
            with self._locked(folder):
                before = _read_pointer(folder, broken_ok=True)
                version = before.version + 1 if before else 1
                pointer = Pointer(version, secrets.token_hex(16), digest)
                _write(folder, pointer, {**files, MANIFEST: text})
                _sweep(folder)
        except OSError as error:
            raise StorageError(CANNOT_WRITE) from error
        return pointer

    def delete(self, name: str) -> None:
        """Remove all versions. Raises ModelNotFoundError or StorageError."""
        folder = self._folder(name)
        if not (folder / CURRENT).exists():
            raise ModelNotFoundError(name)
        try:
            with self._locked(folder):
                (folder / CURRENT).unlink()
                _sync_folder(folder)
                _sweep(folder)
        except FileNotFoundError:
            raise ModelNotFoundError(name) from None
        except OSError as error:
            raise StorageError("The fitted model could not be deleted.") from error

    def _folder(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass"))
        return self._models / digest.hexdigest()

    def _sweep_all(self) -> None:
        """Clear away what crashes left; a read-only store still serves what it has."""
        for folder in _subfolders(self._models):
            try:
                with self._locked(folder):
                    _sweep(folder)
            except (OSError, StorageError):
                LOGGER.warning("a folder of the store of fitted models cannot be swept")

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """Exclusive among threads and processes; the kernel frees it when its holder dies."""
        path = self._locks / folder.name[0]
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _write(folder: Path, pointer: Pointer, files: Mapping[str, bytes]) -> None:
    """A new version, complete on disk, then the switch to it. Raises OSError."""
    version = folder / pointer.folder
    try:
        folder.mkdir(exist_ok=True, mode=0o700)
        version.mkdir(mode=0o700)
        for name, data in files.items():
            _write_file(version / name, data)
        _sync_folder(version)
        text = json.dumps(
            {"version": pointer.version, "folder": pointer.folder, "digest": pointer.digest}
        )
        _write_file(version / CURRENT, text.encode())
        os.replace(version / CURRENT, folder / CURRENT)
    except OSError:
        shutil.rmtree(version, ignore_errors=True)
        raise
    for changed in (folder, folder.parent):
        _sync_folder(changed)


def _write_file(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
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


def _sweep(folder: Path) -> None:
    """Remove every version but the current one, and a folder without any. Needs the lock.

    Raises StorageError, and removes nothing, when `current` is there and says nothing.
    """
    pointer = _read_pointer(folder)
    kept = pointer.folder if pointer else None
    for version in _subfolders(folder):
        if version.name != kept:
            shutil.rmtree(version, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _subfolders(folder: Path) -> list[Path]:
    """Real folders only: a symbolic link is never followed and never removed."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _read_pointer(folder: Path, broken_ok: bool = False) -> Pointer | None:
    """What `current` says; None when there is none (or, `broken_ok`, when it says nothing)."""
    try:
        return Pointer.parsed((folder / CURRENT).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(CANNOT_READ) from error
    except (ValueError, KeyError, TypeError) as error:
        if broken_ok:
            return None
        raise StorageError(CANNOT_READ) from error


def _read_manifest(folder: Path, pointer: Pointer) -> Mapping[str, object]:
    """Raises OSError, or StorageError for a manifest that is not the one pointed at."""
    text = (folder / pointer.folder / MANIFEST).read_bytes()
    if hashlib.sha256(text).hexdigest() != pointer.digest:
        raise StorageError("The stored model does not match its digest.")
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise StorageError(CANNOT_READ) from error
    if not isinstance(manifest, dict):
        raise StorageError(CANNOT_READ)
    return manifest


def _read(folder: Path, pointer: Pointer) -> Artefact:
    manifest = _read_manifest(folder, pointer)
    digests = manifest.get("digests")
    if not isinstance(digests, dict):
        raise StorageError(CANNOT_READ)
    files = {}
    for name, digest in digests.items():
        if "/" in name or name.startswith("."):
            raise StorageError(CANNOT_READ)
        files[name] = (folder / pointer.folder / name).read_bytes()
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise StorageError("The stored model does not match its digest.")
    return Artefact(pointer, manifest, files)
