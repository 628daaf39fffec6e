"""Keeps what users wrote apart from what a template wrote, through the rendering of a template."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of rendered text. In template text the texts of control tokens mean the tokens;
    elsewhere they are a user's words and must stay words."""

    text: str
    is_template: bool


@dataclass(frozen=True, slots=True)
class Rendering:
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments)


class Shield:
    """Takes the texts of control tokens out of what users write.

    They are replaced by marks before rendering, which only this rendering knows, and put back
    afterwards as segments that are not template text. Text without them is not touched, so its
    tokens are those of the plain rendering. The beginning of a control text at the end of a
    message and the end of one at its beginning are covered too: they could become whole beside
    what the template writes there.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        known = sorted(set(texts), key=len, reverse=True)
        heads = {text[:size] for text in known for size in range(1, len(text))}
        tails = {text[-size:] for text in known for size in range(1, len(text))}
        self._inner = re.compile("|".join(map(re.escape, known))) if known else None
        self._head = _alternatives(heads, r"(?=\s*\Z)")
        self._tail = _alternatives(tails, "")

    def cover(self, text: str, nonce: str, hidden: list[str]) -> str:
        """The text with marks; what they stand for is appended to `hidden`."""
        if self._inner is None:
            return text

        def mark(match: re.Match[str]) -> str:
            hidden.append(match.group())
            return f"\ue000{nonce}.{len(hidden) - 1}\ue001"

        text = self._inner.sub(mark, text)
        body = text.lstrip()
        if (match := self._tail.match(body)) is not None:
            text = text[: len(text) - len(body)] + mark(match) + body[match.end() :]
        if (match := self._head.search(text)) is not None:
            text = text[: match.start()] + mark(match) + text[match.end() :]
        return text


class Cover:
    """Covers everything users wrote for one rendering, and uncovers what it became.

    The marks are of letters, digits, a dot and two private-use characters, so JSON does not
    escape them. `end` is a mark for the place where a rendering is to be cut.
    """

    def __init__(self, shield: Shield) -> None:
        self._shield = shield
        self._nonce = secrets.token_hex(8)
        self._hidden: list[str] = []
        self.end = f"\ue000{self._nonce}.end\ue001"

    def text(self, text: str) -> str:
        return self._shield.cover(text, self._nonce, self._hidden)

    def value(self, value: Any) -> Any:
        """A JSON value, all its texts and keys covered. RecursionError when it is too deep."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self.value(item) for key, item in value.items()}
        return value

    def reveal(self, rendered: str) -> Rendering:
        pieces = re.split(f"\ue000{self._nonce}\\.([0-9]+)\ue001", rendered)
        segments = [
            Segment(self._hidden[int(piece)], False) if index % 2 else Segment(piece, True)
            for index, piece in enumerate(pieces)
        ]
        return Rendering(tuple(segment for segment in segments if segment.text))


def _alternatives(texts: set[str], end: str) -> re.Pattern[str]:
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile(f"(?:{'|'.join(map(re.escape, longest_first))}){end}")
