"""The points of a streaming detector on disk: a snapshot of its window and a journal after it.

    state/<sha256 of the name>/settings.json                     name, settings, generation
    state/<sha256 of the name>/<generation>/snapshot.json        the window after some point
    state/<sha256 of the name>/<generation>/<first>-<count>.json the points of one request after it
    state/<sha256 of the name>/<generation>/fit.json             after which point it was fitted

A request is answered when its points are durable, so no acknowledged point is ever lost. At most
SEGMENTS requests are replayed. A reset begins a new generation. Whoever writes has the lock.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from models.errors import StorageError
from models.stores.storage import Storage
from models.types.anomaly import Row, StreamSettings

FOLDER = "state"
SETTINGS = "settings.json"
SNAPSHOT = "snapshot.json"
FIT = "fit.json"
SEGMENT = re.compile(r"([0-9]{12})-([0-9]{9})\.json")
GENERATION = re.compile(r"[0-9a-f]{16}")
SEGMENTS = 64
"""Requests in the journal before the window is written as a whole."""
CANNOT_READ = "The streaming detector cannot be read."


@dataclass(frozen=True, slots=True)
class Stream:
    """What does not change while a generation lasts."""

    name: str
    settings: StreamSettings
    generation: str
    columns: tuple[str, ...]
    named: bool
    created: float

    @property
    def model(self) -> str:
        """The name of its fitted detector."""
        return f"stream-{self.generation}"


@dataclass(slots=True)
class Window:
    """The last points; `count` have come in all, up to `snapshot` they are in the snapshot."""

    rows: deque[Row]
    count: int = 0
    snapshot: int = 0
    segments: list[str] = field(default_factory=list)

    def add(self, rows: Sequence[Row]) -> None:
        self.rows.extend(rows)
        self.count += len(rows)


def key_of(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def new_generation() -> str:
    return secrets.token_hex(8)


class StreamStates:
    """Raises StorageError for whatever cannot be read or written."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def all_keys(self) -> list[str]:
        with _storage_errors():
            return self._storage.folders(FOLDER)

    def stream(self, key: str) -> Stream | None:
        """None when there is none."""
        fields = self._json(f"{FOLDER}/{key}/{SETTINGS}")
        if fields is None:
            return None
        try:
            stream = _stream(fields)
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(CANNOT_READ) from error
        if key_of(stream.name) != key or not GENERATION.fullmatch(stream.generation):
            raise StorageError(CANNOT_READ)
        return stream

    def create(self, stream: Stream) -> None:
        """Begin a generation; what the one before has left is removed by `forget`."""
        fields = dataclasses.asdict(stream)
        self._write(f"{FOLDER}/{key_of(stream.name)}/{SETTINGS}", fields)

    def forget(self, key: str, generation: str) -> None:
        self._storage.remove_folder(f"{FOLDER}/{key}/{generation}")

    def delete(self, key: str) -> None:
        with _storage_errors():
            self._storage.remove(f"{FOLDER}/{key}/{SETTINGS}")
        self._storage.remove_folder(f"{FOLDER}/{key}")

    def count(self, stream: Stream) -> int:
        """Points that have come."""
        names = self._segments(stream)
        if names:
            return sum(_span(names[-1]))
        snapshot = self._json(f"{_folder(stream)}/{SNAPSHOT}")
        return int(snapshot["count"]) if snapshot else 0

    def catch_up(self, stream: Stream, window: Window | None) -> Window:
        """The window as it is on disk; `window` is what the caller knows already, if anything."""
        names = self._segments(stream)
        # No journal at all: another process may just have folded it into a newer snapshot.
        if window is None or not names or _span(names[0])[0] > window.count:
            window = self._snapshot(stream)
        for name in names:
            first, count = _span(name)
            if first + count > window.count:
                window.add(self._rows(f"{_folder(stream)}/{name}")[window.count - first :])
        window.segments = names
        return window

    def append(self, stream: Stream, window: Window, rows: Sequence[Row]) -> None:
        """Make points durable, then let them join the window."""
        name = f"{window.count:012d}-{len(rows):09d}.json"
        self._write(f"{_folder(stream)}/{name}", {"rows": rows})
        window.add(rows)
        window.segments.append(name)
        if len(window.segments) >= SEGMENTS:
            self._compact(stream, window)

    def fitted_at(self, stream: Stream) -> int | None:
        """How many points had come when the detector was last fitted."""
        fields = self._json(f"{_folder(stream)}/{FIT}")
        return int(fields["count"]) if fields else None

    def set_fitted(self, stream: Stream, count: int) -> None:
        self._write(f"{_folder(stream)}/{FIT}", {"count": count})

    def _compact(self, stream: Stream, window: Window) -> None:
        fields = {"count": window.count, "rows": list(window.rows)}
        self._write(f"{_folder(stream)}/{SNAPSHOT}", fields)
        for name in window.segments:
            with _storage_errors():
                self._storage.remove(f"{_folder(stream)}/{name}")
        window.segments, window.snapshot = [], window.count

    def _snapshot(self, stream: Stream) -> Window:
        window = Window(deque(maxlen=stream.settings.window_size))
        fields = self._json(f"{_folder(stream)}/{SNAPSHOT}")
        if fields is not None:
            try:
                window.rows.extend(tuple(row) for row in fields["rows"])
                window.count = window.snapshot = int(fields["count"])
            except (KeyError, TypeError, ValueError) as error:
                raise StorageError(CANNOT_READ) from error
        return window

    def _segments(self, stream: Stream) -> list[str]:
        with _storage_errors():
            names = self._storage.files(_folder(stream))
        return sorted(name for name in names if SEGMENT.fullmatch(name))

    def _rows(self, path: str) -> list[Row]:
        fields = self._json(path)
        if fields is None:
            raise StorageError(CANNOT_READ)
        return [tuple(row) for row in fields["rows"]]

    def _json(self, path: str) -> dict[str, Any] | None:
        try:
            fields = json.loads(self._storage.read(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StorageError(CANNOT_READ) from error
        if not isinstance(fields, dict):
            raise StorageError(CANNOT_READ)
        return fields

    def _write(self, path: str, fields: dict[str, Any]) -> None:
        with _storage_errors():
            self._storage.replace(path, json.dumps(fields).encode())


def _folder(stream: Stream) -> str:
    return f"{FOLDER}/{key_of(stream.name)}/{stream.generation}"


def _span(name: str) -> tuple[int, int]:
    """The first point of a segment, and how many it has."""
    first, count = name.removesuffix(".json").split("-")
    return int(first), int(count)


def _stream(fields: dict[str, Any]) -> Stream:
    """Raises KeyError, TypeError or ValueError."""
    given = dict(fields["settings"])
    for name in ("rolling_windows", "lag_periods"):
        given[name] = tuple(map(int, given[name]))
    given["parameters"] = tuple((str(name), value) for name, value in given["parameters"])
    return Stream(
        name=str(fields["name"]),
        settings=StreamSettings(**given),
        generation=str(fields["generation"]),
        columns=tuple(map(str, fields["columns"])),
        named=bool(fields["named"]),
        created=float(fields["created"]),
    )


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError("The streaming detector could not be stored.") from error
