"""What the file `current` of a fitted model says: its versions, or that it is an alias."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FOLDER_PATTERN = re.compile(r"[0-9a-f]{32}")
DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Pointer:
    """One version. `digest` is the sha256 of its manifest, which has those of the files."""

    version: int
    folder: str
    digest: str

    @staticmethod
    def of(fields: Mapping[str, Any]) -> Pointer:
        """Raises ValueError, KeyError or TypeError."""
        pointer = Pointer(int(fields["version"]), fields["folder"], fields["digest"])
        if not FOLDER_PATTERN.fullmatch(pointer.folder):
            raise ValueError("folder")
        if not DIGEST_PATTERN.fullmatch(pointer.digest):
            raise ValueError("digest")
        return pointer

    @property
    def fields(self) -> dict[str, Any]:
        return {"version": self.version, "folder": self.folder, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class Index:
    """The versions that are kept, the current one first; `last` is the highest number given."""

    pointers: tuple[Pointer, ...]
    last: int

    @property
    def current(self) -> Pointer:
        return self.pointers[0]

    def find(self, version: int | None) -> Pointer | None:
        """That version, the current one for None."""
        if version is None:
            return self.current
        return next((p for p in self.pointers if p.version == version), None)

    @property
    def text(self) -> bytes:
        older = [pointer.fields for pointer in self.pointers[1:]]
        return json.dumps({**self.current.fields, "older": older, "last": self.last}).encode()


@dataclass(frozen=True, slots=True)
class Alias:
    """`name` stands for `target`, which may say a version."""

    name: str
    target: str

    @property
    def text(self) -> bytes:
        return json.dumps({"alias": self.target, "name": self.name}).encode()


def parsed(text: bytes) -> Index | Alias:
    """Raises ValueError, KeyError or TypeError. The form that named one version is read too."""
    fields = json.loads(text)
    if isinstance(fields, dict) and "alias" in fields:
        return Alias(str(fields["name"]), str(fields["alias"]))
    current = Pointer.of(fields)
    older = tuple(Pointer.of(entry) for entry in fields.get("older", ()))
    return Index((current, *older), int(fields.get("last", current.version)))
