"""What was placed in the weights cache: every file with its size and sha256."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MANIFEST_NAME = "manifest.json"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file as it was when it was placed.

    `mtime_ns` lets a load skip hashing: an unchanged size and time is trusted, a changed time is
    hashed again.
    """

    size: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not what the manifest says; `found` is None when it is missing."""

    file: str
    expected: str
    found: str | None

    def __str__(self) -> str:
        state = f"has sha256 {self.found}" if self.found else "is missing"
        return f"{self.file} {state}, expected {self.expected}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of one cache entry.

    `entry` is what a loader opens, relative to the files; "" is the folder itself.
    """

    source: dict[str, Any]
    entry: str
    files: dict[str, FileRecord]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(record.size for record in self.files.values())

    def dumped(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @staticmethod
    def loaded(data: dict[str, Any]) -> Manifest:
        """Raises ValueError, TypeError, KeyError or AttributeError for anything else."""
        files = {name: FileRecord(**record) for name, record in data["files"].items()}
        return Manifest(source=data["source"], entry=data["entry"], files=files)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.dumped(), indent=1, sort_keys=True), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Manifest | None:
        """The manifest, or None when there is none or it is not readable as one."""
        try:
            return Manifest.loaded(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def record_of(path: Path) -> FileRecord:
    status = path.stat()
    return FileRecord(status.st_size, sha256_of(path), status.st_mtime_ns)


def records_of(folder: Path) -> dict[str, FileRecord]:
    """Every regular file below `folder` by its relative name, in name order."""
    names = sorted(
        Path(parent, name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
    )
    return {name: record_of(folder / name) for name in names}
