"""Text that arrives bit by bit, for readers that are written as if it were all there.

A reader is a generator: it yields wherever it needs text that has not come yet. So what it makes
of a text cannot depend on where the text was split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]

_SPACE = re.compile(r"\s+")


class NotACall(Exception):
    """The text is no tool call after all."""


class Markers:
    """Finds the first of several texts, or the beginning of one at the end of the text."""

    def __init__(self, texts: Iterable[str]) -> None:
        known = sorted({text for text in texts if text}, key=len, reverse=True)
        heads = sorted({t[:size] for t in known for size in range(1, len(t))}, key=len)[::-1]
        whole = "|".join(map(re.escape, known)) or r"(?!)"
        begun = "|".join(map(re.escape, heads)) or r"(?!)"
        self._pattern = re.compile(rf"({whole})|(?:{begun})\Z")

    def find(self, text: str, start: int) -> tuple[int, str]:
        """Where a marker is or may be, and the marker; "" when it is not there, or not yet."""
        match = self._pattern.search(text, start)
        return (len(text), "") if match is None else (match.start(), match.group(1) or "")


class TextSource:
    """What has come and has not been taken yet. Only beginnings of markers are ever kept, so the
    work is in proportion to the text."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._ended = False
        self._record: list[str] | None = None

    def feed(self, text: str) -> None:
        self._text = self._text[self._at :] + text
        self._at = 0

    def end(self) -> None:
        """There will be no more text."""
        self._ended = True

    @property
    def ended(self) -> bool:
        return self._ended

    # --- a record of what was taken -------------------------------------------------------------

    def record(self, text: str = "") -> None:
        """Begin anew to record what is taken, with `text` before it."""
        self._record = [text]

    def recorded(self) -> str:
        """What was taken since, and no more of it is recorded."""
        taken = "".join(self._record or ())
        self._record = None
        return taken

    # --- without waiting ------------------------------------------------------------------------

    def take(self, pattern: re.Pattern[str]) -> str:
        """What matches here in the text that has come; more of it may be coming."""
        match = pattern.match(self._text, self._at)
        return "" if match is None else self._taken(match.end())

    def _taken(self, end: int) -> str:
        text = self._text[self._at : end]
        self._at = end
        if self._record is not None:
            self._record.append(text)
        return text

    # --- waiting for text -----------------------------------------------------------------------

    def peek(self) -> Steps[str]:
        """The next character; "" at the end."""
        while self._at == len(self._text):
            if self._ended:
                return ""
            yield
        return self._text[self._at]

    def next(self) -> Steps[str]:
        """Take the next character. NotACall at the end."""
        if not (yield from self.peek()):
            raise NotACall
        return self._taken(self._at + 1)

    def literal(self, *texts: str) -> Steps[str]:
        """Take the one of the texts that is next; "" when none is. None begins with another."""
        while True:
            for text in texts:
                if self._text.startswith(text, self._at):
                    return self._taken(self._at + len(text))
            rest = self._text[self._at : self._at + max(map(len, texts), default=0)]
            begun = any(text.startswith(rest) for text in texts)
            if self._ended and begun and self._record is not None:
                self._taken(len(self._text))  # cut off within it: the rest of what is on record
            if self._ended or not begun:
                return ""
            yield

    def expect(self, *texts: str) -> Steps[str]:
        """Take the one of the texts that is next. NotACall when none is."""
        found = yield from self.literal(*texts)
        if not found:
            raise NotACall
        return found

    def run(self, pattern: re.Pattern[str]) -> Steps[str]:
        """Take all that matches, a pattern of single characters."""
        parts: list[str] = []
        while (yield from self.peek()) and (part := self.take(pattern)):
            parts.append(part)
        return "".join(parts)

    def space(self) -> Steps[str]:
        """Take white space."""
        return self.run(_SPACE)

    def until(self, markers: Markers, write: Callable[[str], object]) -> Steps[str]:
        """Write the text up to a marker as it comes, and take the marker; "" at the end."""
        while True:
            start, marker = markers.find(self._text, self._at)
            if start > self._at:
                write(self._taken(start))
            if marker:
                return self._taken(start + len(marker))
            if self._ended:
                if self._at < len(self._text):
                    write(self._taken(len(self._text)))
                return ""
            yield
