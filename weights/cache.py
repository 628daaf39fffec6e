"""The weights cache: one folder per source, placed whole or not at all.

    <root>/entries/<key>/manifest.json   what was placed, with the sha256 of every file
    <root>/entries/<key>/files/          the files
    <root>/staging/<key>-XXXX/           an entry in the making; renamed into place when complete
    <root>/locks/<key>                   flock: two processes that want one model fetch it once

`<key>` is a digest of the source, so neither a model id nor a file name from outside ever becomes
a folder name, and two models with the same source share their weights.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from config.catalog import HubSource, ModelSpec
from models.errors import ModelLoadError
from weights.manifest import (
    MANIFEST_NAME,
    Damage,
    FileRecord,
    Manifest,
    records_of,
    sha256_of,
)
from weights.store import WeightsStore, open_store


class WeightsCache:
    """Weights by source. Reading needs no lock; whoever changes an entry holds `lock(spec)`.

    `store` is what the caches of several nodes are filled from, if there is one.
    """

    def __init__(self, root: Path, store: WeightsStore | None = None) -> None:
        self.root = root
        self.store = store

    @staticmethod
    def key(spec: ModelSpec) -> str:
        """A digest of everything the source pins: a changed pin is another entry."""
        pins = spec.source.model_dump(mode="json")
        if isinstance(spec.source, HubSource):
            pins["engine"] = spec.engine  # which decides what is taken of the repository
        text = json.dumps(pins, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def manifest(self, spec: ModelSpec) -> Manifest | None:
        return Manifest.read(self._entry(spec) / MANIFEST_NAME)

    def locate(self, spec: ModelSpec) -> Path | None:
        """What a loader opens (a file or a folder), or None when a file is absent or cut.

        Looks at sizes only; `changed` and `verify` look at contents.
        """
        manifest = self.manifest(spec)
        if manifest is None:
            return None
        folder = self.files(spec)
        whole = all(_size(folder / name) == record.size for name, record in manifest.files.items())
        return folder / manifest.entry if whole else None

    def changed(self, spec: ModelSpec) -> list[Damage]:
        """Damage among the files whose modification time has changed since they were placed."""
        return self._damage(spec, only_touched=True)

    def verify(self, spec: ModelSpec) -> list[Damage]:
        """Hash every file; empty when all is as placed, or when nothing is placed."""
        return self._damage(spec, only_touched=False)

    def _damage(self, spec: ModelSpec, *, only_touched: bool) -> list[Damage]:
        manifest = self.manifest(spec)
        if manifest is None:
            return []
        folder = self.files(spec)
        checks = (
            _check(folder / name, name, record, only_touched)
            for name, record in manifest.files.items()
        )
        return [damage for damage in checks if damage is not None]

    def lock(self, spec: ModelSpec) -> AbstractContextManager[None]:
        """Exclusive among all processes of this machine; waits."""
        return self._lock(self.key(spec))

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        with (self._folder("locks") / key).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for left_by_a_crash in self._folder("staging").glob(f"{key}-*"):
                shutil.rmtree(left_by_a_crash, ignore_errors=True)
            yield

    def staging(self, spec: ModelSpec) -> AbstractContextManager[Path]:
        """An empty folder on the cache's file system; what is left in it afterwards is deleted."""
        return self._staging(self.key(spec))

    @contextmanager
    def _staging(self, key: str) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=self._folder("staging")))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def place(self, spec: ModelSpec, files: Path, entry: str) -> Path:
        """Make the folder `files` (inside a staging folder) the source's entry, atomically.

        `entry` names what a loader opens, relative to `files`; "" is the folder.
        """
        manifest = Manifest(spec.source.model_dump(mode="json"), entry, records_of(files))
        with self.staging(spec) as staged:
            files.rename(staged / "files")
            manifest.write(staged / MANIFEST_NAME)
            _sync(staged)
            self.remove(spec)
            staged.rename(self._folder("entries") / self.key(spec))
            _sync_folder(self.root / "entries")
        return self.files(spec) / entry

    def remove(self, spec: ModelSpec) -> bool:
        """Delete the entry; False when there was none. It vanishes in one rename."""
        return self._remove(self.key(spec))

    def _remove(self, key: str) -> bool:
        with self._staging(key) as trash:
            try:
                (self.root / "entries" / key).rename(trash / "removed")
            except FileNotFoundError:
                return False
        return True

    def clear(self) -> int:
        """Delete every entry, also those that no catalogue names; how many there were.

        With them goes what interrupted downloads have left.
        """
        keys = [path.name for path in self._folder("entries").iterdir()]
        for key in keys:
            with self._lock(key):
                self._remove(key)
        for left in self._folder("staging").iterdir():
            self._sweep(left)
        return len(keys)

    def _sweep(self, staging: Path) -> None:
        """Delete a staging folder, unless somebody is filling it."""
        key = staging.name.partition("-")[0]
        with (self._folder("locks") / key).open("w") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(staging, ignore_errors=True)

    def size(self, spec: ModelSpec) -> int:
        """Bytes of the entry's files, 0 when there is none."""
        manifest = self.manifest(spec)
        return manifest.size if manifest else 0

    def entries(self) -> Sequence[Manifest]:
        """Everything that is placed, whether or not a catalogue still names it."""
        found = sorted((self.root / "entries").glob(f"*/{MANIFEST_NAME}"))
        return [manifest for path in found if (manifest := Manifest.read(path)) is not None]

    def files(self, spec: ModelSpec) -> Path:
        """The folder of the entry's files, whether or not it is there."""
        return self._entry(spec) / "files"

    def _entry(self, spec: ModelSpec) -> Path:
        return self.root / "entries" / self.key(spec)

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def open_cache(root: Path, url: str | None) -> WeightsCache:
    """The cache of one node, filled from the store at `url`, if any. Raises ModelLoadError."""
    try:
        return WeightsCache(root, open_store(url))
    except OSError as error:
        raise ModelLoadError("The store of `weights_url` cannot be opened.") from error


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _check(path: Path, name: str, record: FileRecord, only_touched: bool) -> Damage | None:
    try:
        status = path.stat()
        untouched = (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns)
        if only_touched and untouched:
            return None
        found = sha256_of(path)
    except OSError:
        return Damage(name, record.sha256, None)
    return None if found == record.sha256 else Damage(name, record.sha256, found)


def _sync(folder: Path) -> None:
    """Flush every file and folder below, so that a rename never publishes empty files."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with Path(parent, name).open("rb") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(parent))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
