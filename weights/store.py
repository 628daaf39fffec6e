"""Weights that nodes share: the first that needs a model fetches it, the others copy it.

    <root>/<key>/manifest.json   which of the uploads counts, with the sha256 of every file
    <root>/<key>/<upload>/       its files, under their relative names
    <root>/locks/                whose turn it is

The root is a folder that all nodes mount, or the URL of an object store that fsspec knows. An
upload has a name that nobody else has and counts once the manifest names it, so that neither a
crash nor two nodes at once can leave half an entry. Who can write here decides what is loaded.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from models.errors import ModelLoadError
from models.stores.storage import Storage, open_storage
from weights.manifest import MANIFEST_NAME, Damage, FileRecord, Manifest, sha256_of
from weights.pip_download import Progress
from weights.safety import stays_inside


class WeightsStore:
    """Entries by the key of their source. Everything raises OSError when the store fails."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def copy(self, key: str, folder: Path, progress: Progress | None = None) -> str | None:
        """Copy an entry's files to an empty folder; what a loader opens in it ("" is the folder).

        None when the store has no such entry. Raises ModelLoadError when the files are not those
        of the manifest.
        """
        found = self._read(key)
        if found is None:
            return None
        upload, manifest = found
        if not all(map(stays_inside, (manifest.entry, *manifest.files))):
            raise ModelLoadError("its shared copy has a file outside of its folder.")
        done = _Counter(manifest.size, progress)
        for name, record in manifest.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._storage.download(f"{key}/{upload}/{name}", target, done.add)
            _verify(target, name, record)
        return manifest.entry

    def holds(self, key: str) -> bool:
        return self._storage.exists(_pointer(key))

    def add(self, key: str, manifest: Manifest, files: Path) -> None:
        """Upload the files of a manifest; afterwards they are the entry.

        Unless another node has uploaded its own meanwhile, which stay then.
        """
        upload = secrets.token_hex(16)
        try:
            for name in manifest.files:
                self._storage.upload(files / name, f"{key}/{upload}/{name}")
            if self.holds(key):
                self._storage.remove_folder(f"{key}/{upload}")
                return
            pointer = {"upload": upload, "manifest": manifest.dumped()}
            self._storage.replace(_pointer(key), json.dumps(pointer).encode())
        except OSError:
            self._storage.remove_folder(f"{key}/{upload}")
            raise

    def remove(self, key: str) -> bool:
        """Delete an entry; False when there was none."""
        try:
            self._storage.remove(_pointer(key))
        except FileNotFoundError:
            return False
        self._storage.remove_folder(key)
        return True

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Wait while another node fetches the entry, in an object store for two minutes at most.

        Only to fetch it once: nothing breaks without, for example where the store is read-only.
        """
        with ExitStack() as held:
            with suppress(OSError):
                held.enter_context(self._storage.lock(f"weights-{key}"))
            yield

    def _read(self, key: str) -> tuple[str, Manifest] | None:
        try:
            pointer = json.loads(self._storage.read(_pointer(key)))
            return str(pointer["upload"]), Manifest.loaded(pointer["manifest"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelLoadError("the manifest of its shared copy cannot be read.") from error


def open_store(url: str | None) -> WeightsStore | None:
    """The store at a folder or URL; None for None. Raises OSError."""
    return WeightsStore(open_storage(url)) if url else None


def _pointer(key: str) -> str:
    return f"{key}/{MANIFEST_NAME}"


class _Counter:
    """Adds up the bytes of several files."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0

    def add(self, n_bytes: int) -> None:
        self._done += n_bytes
        if self._progress is not None:
            self._progress(self._done, self._total)


def _verify(path: Path, name: str, record: FileRecord) -> None:
    found = sha256_of(path)
    if found != record.sha256:
        damage = Damage(name, record.sha256, found)
        raise ModelLoadError(f"its shared copy is damaged: {damage}. Remove it from the store.")
