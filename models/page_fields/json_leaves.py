"""The single values of a JSON text, with the characters that each stands in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]

Scalar = str | int | float | bool | None
Path = tuple[str | int, ...]
SPACE = re.compile(r"[ \t\n\r]*")
SCALAR = re.compile(r"[^\s,\]}]+")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that is neither an object nor a list; `start` to `stop` in characters of the text,
    without the quotes of a string."""

    path: Path
    value: Scalar
    start: int
    stop: int

    @property
    def key(self) -> str:
        return ".".join(map(str, self.path))


def leaves(text: str) -> list[Leaf]:
    """All of them, in order. Raises ValueError for what is not JSON, or too deep to be read."""
    try:
        json.loads(text)
        found = list(_value(text, _skip(text, 0), ()))
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    return [leaf for leaf in found if isinstance(leaf, Leaf)]


def _value(text: str, start: int, path: Path) -> Iterator[Leaf | int]:
    """The leaves of the value at `start`, then where it ends."""
    if text[start] in "{[":
        yield from _members(text, start, path)
    elif text[start] == '"':
        value, stop = scanstring(text, start + 1, True)
        yield Leaf(path, value, start + 1, stop - 1)
        yield stop
    else:
        match = SCALAR.match(text, start)
        stop = match.end() if match else start
        yield Leaf(path, json.loads(text[start:stop]), start, stop)
        yield stop


def _members(text: str, start: int, path: Path) -> Iterator[Leaf | int]:
    is_object = text[start] == "{"
    place, index = _skip(text, start + 1), 0
    while text[place] not in "}]":
        name: str | int = index
        if is_object:
            name, place = scanstring(text, place + 1, True)
            place = _skip(text, text.index(":", place) + 1)
        for item in _value(text, place, (*path, name)):
            if isinstance(item, int):
                place = _skip(text, item)
            else:
                yield item
        if text[place] == ",":
            place = _skip(text, place + 1)
        index += 1
    yield place + 1


def _skip(text: str, place: int) -> int:
    match = SPACE.match(text, place)
    return match.end() if match else place
