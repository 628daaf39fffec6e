"""Where what clients have fitted is kept: one folder per name, one sub-folder per version.

    models/<sha256 of the name>/current             which versions there are, or whose alias it is
    models/<sha256 of the name>/<random>/manifest.json, <files>

A version is written completely, then `current` is replaced in one step; whatever `current` does
not name is the rest of a crash and is swept. Readers take no lock: when files vanish under them,
they read `current` again. Names never become paths, and what `current` says is checked before use.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from models.errors import InvalidInputError, ModelNotFoundError, StorageError
from models.stores.artefact_index import Alias, Index, Pointer, parsed
from models.stores.storage import NEW, Storage, open_storage

T = TypeVar("T")
Manifest = Mapping[str, object]

LOGGER = logging.getLogger(__name__)

MODELS = "models"
MANIFEST = "manifest.json"
CURRENT = "current"
READ_ATTEMPTS = 20
"""Times that a version may be replaced while one call reads it."""
CANNOT_WRITE = "The fitted model could not be stored."
CANNOT_READ = "The stored model cannot be read."
CANNOT_DELETE = "The fitted model could not be deleted."


@dataclass(frozen=True, slots=True)
class Artefact:
    """One complete version, its files checked against their digests."""

    pointer: Pointer
    manifest: Manifest
    files: Mapping[str, bytes]


class ArtefactStore:
    """Safe for threads, processes and nodes that share `root`; the last `keep` versions stay.

    Where a method takes a version, None is the current one. The constructor raises StorageError
    when there is no root and none can be made.
    """

    def __init__(self, root: str | Path, keep: int = 1) -> None:
        self._keep = keep
        try:
            self.storage: Storage = open_storage(root)
            names = self.storage.folders(MODELS)
        except OSError as error:
            raise StorageError("The folder of fitted models cannot be used.") from error
        self._sweep_all(names)

    def pointer(self, name: str, version: int | None = None) -> Pointer:
        """Raises ModelNotFoundError or StorageError."""
        index = self._index(_folder(name))
        found = index.find(version) if isinstance(index, Index) else None
        if found is None:
            raise ModelNotFoundError(name if version is None else f"{name}@{version}")
        return found

    def manifest(self, name: str, version: int | None = None) -> tuple[Pointer, Manifest]:
        """Raises ModelNotFoundError or StorageError."""
        return self._reading(name, version, lambda folder, at: (at, self._manifest(folder, at)))

    def read(self, name: str, version: int | None = None) -> Artefact:
        """The version, complete. Raises ModelNotFoundError or StorageError."""
        return self._reading(name, version, self._read)

    def versions(self, name: str) -> list[tuple[Pointer, Manifest]]:
        """All that are kept, the current one first. Raises ModelNotFoundError or StorageError."""
        self.pointer(name)
        index = self._index(_folder(name))
        pointers = index.pointers if isinstance(index, Index) else ()
        found = []
        for pointer in pointers:
            try:
                found.append(self.manifest(name, pointer.version))
            except ModelNotFoundError:  # replaced meanwhile
                continue
        return found

    def alias_of(self, name: str) -> str | None:
        """What an alias stands for; None when the name is no alias."""
        index = self._index(_folder(name))
        return index.target if isinstance(index, Alias) else None

    def aliases(self) -> dict[str, str]:
        """Alias -> what it stands for."""
        found = {}
        for folder, index in self._indices():
            if isinstance(index, Alias) and _folder(index.name) == folder:
                found[index.name] = index.target
        return found

    def manifests(self) -> Iterator[tuple[Pointer, Manifest]]:
        """Of every name's current version, in no order; what cannot be read is left out."""
        for folder, index in self._indices():
            if isinstance(index, Index):
                try:
                    yield index.current, self._manifest(folder, index.current)
                except (OSError, StorageError):
                    LOGGER.warning("a stored model cannot be read and is not listed")

    def publish(self, name: str, manifest: Manifest, files: Mapping[str, bytes]) -> Pointer:
        """Make these files and this manifest the current version.

        `digests` is added to the manifest. Raises StorageError, the version before stays then, and
        InvalidInputError when the name is an alias.
        """
        folder = _folder(name)
        with self._writing(CANNOT_WRITE, folder):
            before = self._index(folder, broken_ok=True)
            if isinstance(before, Alias):
                raise InvalidInputError(f"'{name}' is an alias of '{before.target}'.", "model")
            return self._publish(folder, before, manifest, files)

    def amend(self, name: str, edit: Callable[[Manifest], Manifest]) -> Pointer:
        """A new current version with the files of the one before and an edited manifest.

        A version that is published at the same time is not lost: one of the two comes first.
        Raises ModelNotFoundError, StorageError and what `edit` raises.
        """
        folder = _folder(name)
        with self._writing(CANNOT_WRITE, folder):
            before = self._index(folder)
            if not isinstance(before, Index):
                raise ModelNotFoundError(name)
            found = self._read(folder, before.current)
            return self._publish(folder, before, edit(found.manifest), found.files)

    def set_alias(self, name: str, target: str) -> None:
        """Let a name stand for another one. Raises StorageError, InvalidInputError."""
        folder = _folder(name)
        with self._writing(CANNOT_WRITE, folder):
            if isinstance(self._index(folder), Index):
                raise InvalidInputError(f"'{name}' is a fitted model.", "alias")
            self.storage.replace(f"{MODELS}/{folder}/{CURRENT}", Alias(name, target).text)

    def rename(self, old: str, new: str, edit: Callable[[Manifest], Manifest]) -> None:
        """Move all versions to a free name, with manifests as `edit` makes them.

        A crash in between leaves both. Raises ModelNotFoundError, StorageError, InvalidInputError.
        """
        source, target = _folder(old), _folder(new)
        with self._writing(CANNOT_WRITE, source, target):
            index = self._index(source)
            if not isinstance(index, Index):
                raise ModelNotFoundError(old)
            if self._index(target) is not None:
                raise InvalidInputError(f"There is a fitted model '{new}' already.", "name")
            pointers = []
            for pointer in index.pointers:
                found = self._read(source, pointer)
                pointers.append(
                    self._add(target, pointer.version, edit(found.manifest), found.files)
                )
            self._switch(target, Index(tuple(pointers), index.last), pointers)
            self.storage.remove(f"{MODELS}/{source}/{CURRENT}")
            self._sweep(source)

    def delete(self, name: str, version: int | None = None) -> None:
        """Remove all versions, or one, or an alias. Raises ModelNotFoundError or StorageError."""
        folder = _folder(name)
        if not self._exists(f"{MODELS}/{folder}/{CURRENT}"):
            raise ModelNotFoundError(name)
        with self._writing(CANNOT_DELETE, folder):
            if version is None or self._without(name, folder, version):
                try:
                    self.storage.remove(f"{MODELS}/{folder}/{CURRENT}")
                except FileNotFoundError:
                    raise ModelNotFoundError(name) from None
            self._sweep(folder)

    def _without(self, name: str, folder: str, version: int) -> bool:
        """Take one version out; True when it is the last one and all must go."""
        index = self._index(folder)
        if not isinstance(index, Index) or index.find(version) is None:
            raise ModelNotFoundError(f"{name}@{version}")
        kept = tuple(pointer for pointer in index.pointers if pointer.version != version)
        if kept:
            self._switch(folder, Index(kept, index.last), ())
        return not kept

    def _publish(
        self, folder: str, before: Index | None, manifest: Manifest, files: Mapping[str, bytes]
    ) -> Pointer:
        """The next version after `before`. Needs the lock."""
        version = before.last + 1 if before else 1
        pointer = self._add(folder, version, manifest, files)
        kept = before.pointers[: self._keep - 1] if before else ()
        self._switch(folder, Index((pointer, *kept), version), (pointer,))
        self._sweep(folder)
        return pointer

    def _add(
        self, folder: str, version: int, manifest: Manifest, files: Mapping[str, bytes]
    ) -> Pointer:
        digests = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
        text = json.dumps({**manifest, "digests": digests}, sort_keys=True).encode()
        pointer = Pointer(version, secrets.token_hex(16), hashlib.sha256(text).hexdigest())
        self.storage.add(f"{MODELS}/{folder}/{pointer.folder}", {**files, MANIFEST: text})
        return pointer

    def _switch(self, folder: str, index: Index, added: Iterable[Pointer]) -> None:
        """Name these versions; the added ones go when that fails before it is done."""
        path = f"{MODELS}/{folder}/{CURRENT}"
        try:
            self.storage.replace(path, index.text)
        except OSError:
            if not self._exists(path) or self.storage.read(path) != index.text:
                for pointer in added:
                    self.storage.remove_folder(f"{MODELS}/{folder}/{pointer.folder}")
            raise

    @contextmanager
    def _writing(self, failure: str, *folders: str) -> Iterator[None]:
        """With the locks of these names. Raises StorageError for what goes wrong with files."""
        try:
            with ExitStack() as stack:
                # One of sixteen by name, always in the same order, each once.
                for lock in sorted({folder[0] for folder in folders}):
                    stack.enter_context(self.storage.lock(lock))
                yield
        except OSError as error:
            raise StorageError(failure) from error

    def _reading(self, name: str, version: int | None, read: Callable[[str, Pointer], T]) -> T:
        """What `read` finds in a version, also when `current` changes meanwhile."""
        pointer = self.pointer(name, version)
        for _ in range(READ_ATTEMPTS):
            try:
                return read(_folder(name), pointer)
            except OSError:
                before, pointer = pointer, self.pointer(name, version)
                if pointer == before:
                    break
        raise StorageError(CANNOT_READ)

    def _index(self, folder: str, broken_ok: bool = False) -> Index | Alias | None:
        """None when there is nothing of this name (or, `broken_ok`, when it says nothing)."""
        try:
            return parsed(self.storage.read(f"{MODELS}/{folder}/{CURRENT}"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(CANNOT_READ) from error
        except (ValueError, KeyError, TypeError) as error:
            if broken_ok:
                return None
            raise StorageError(CANNOT_READ) from error

    def _indices(self) -> Iterator[tuple[str, Index | Alias | None]]:
        try:
            folders = self.storage.folders(MODELS)
        except OSError as error:
            raise StorageError(CANNOT_READ) from error
        for folder in folders:
            try:
                yield folder, self._index(folder)
            except StorageError:
                LOGGER.warning("a stored model cannot be read and is not listed")

    def _exists(self, path: str) -> bool:
        try:
            return self.storage.exists(path)
        except OSError as error:
            raise StorageError(CANNOT_READ) from error

    def _manifest(self, folder: str, pointer: Pointer) -> Manifest:
        """Raises OSError, or StorageError for a manifest that is not the one pointed at."""
        text = self.storage.read(f"{MODELS}/{folder}/{pointer.folder}/{MANIFEST}")
        if hashlib.sha256(text).hexdigest() != pointer.digest:
            raise StorageError("The stored model does not match its digest.")
        try:
            manifest = json.loads(text)
        except ValueError as error:
            raise StorageError(CANNOT_READ) from error
        if not isinstance(manifest, dict):
            raise StorageError(CANNOT_READ)
        return manifest

    def _read(self, folder: str, pointer: Pointer) -> Artefact:
        manifest = self._manifest(folder, pointer)
        digests = manifest.get("digests")
        if not isinstance(digests, dict):
            raise StorageError(CANNOT_READ)
        files = {}
        for name, digest in digests.items():
            if "/" in name or name.startswith("."):
                raise StorageError(CANNOT_READ)
            files[name] = self.storage.read(f"{MODELS}/{folder}/{pointer.folder}/{name}")
            if hashlib.sha256(files[name]).hexdigest() != digest:
                raise StorageError("The stored model does not match its digest.")
        return Artefact(pointer, manifest, files)

    def _sweep_all(self, folders: Iterable[str]) -> None:
        """Clear away what crashes left; a read-only store still serves what it has."""
        for folder in folders:
            try:
                with self.storage.lock(folder[0]):
                    self._sweep(folder)
            except (OSError, StorageError):
                LOGGER.warning("a folder of the store of fitted models cannot be swept")

    def _sweep(self, folder: str) -> None:
        """Remove every version that is not named, and a folder without any. Needs the lock.

        Raises StorageError, and removes nothing, when `current` is there and says nothing.
        """
        index = self._index(folder)
        pointers = index.pointers if isinstance(index, Index) else ()
        path = f"{MODELS}/{folder}"
        stray = set(self.storage.folders(path)) - {pointer.folder for pointer in pointers}
        for version in stray:
            self.storage.remove_folder(f"{path}/{version}")
        if index is None:
            self.storage.remove_folder(path)
        elif self._exists(f"{path}/{CURRENT}{NEW}"):
            self.storage.remove(f"{path}/{CURRENT}{NEW}")


def _folder(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
