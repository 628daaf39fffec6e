"""PDF files, rendered page by page in a child process under limits of memory and time."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from models.child_process import ChildProcess
from models.documents.limits import DocumentLimits
from models.documents.text_layer import Bounds, OwnWord, TextLayer
from models.errors import InvalidInputError, ModelError, UnsupportedInputError
from models.types.pages import PixelArray

CHILD = Path(__file__).with_name("pdf_child.py")
LENGTH_BYTES = 4
"""Of the little-endian number before each JSON object."""
MAX_REPLY_BYTES = 32 * 2**20


class PdfDocument:
    """An open PDF file. `close` may come from any thread and ends whatever is being rendered.

    `param` is the wire name that errors carry. The constructor raises InvalidInputError for a
    wrong password and UnsupportedInputError for what is no readable PDF file.
    """

    def __init__(
        self, file: BinaryIO, limits: DocumentLimits, *, password: str | None, param: str | None
    ) -> None:
        self._limits = limits
        self._param = param
        descriptor = file.fileno()
        bounds = (limits.max_pixels, limits.address_space, limits.orphan_seconds)
        self._child = ChildProcess(CHILD, [descriptor, *bounds], inherited=[descriptor])
        self._lock = threading.Lock()
        self._closed = False
        try:
            self.page_count = self._integer(self._ask("open", password=password).get("pages"))
            if self.page_count < 1:
                raise self._damaged()
        except BaseException:
            self.close()
            raise

    def text_layer(self, index: int, dpi: int) -> TextLayer:
        """The text that the page brings along. Raises InvalidInputError."""
        reply = self._ask("text", page=index, dpi=dpi)
        try:
            width, height = map(int, reply["size"])
            lines = [[_word(word) for word in line] for line in reply["lines"]]
            ends = [(_box(*first), _box(*last)) for first, last in reply["ends"]]
            unmapped, pictures = int(reply["unmapped"]), float(reply["pictures"])
            return TextLayer(width, height, lines, unmapped, pictures, ends)
        except (KeyError, TypeError, ValueError):
            raise self._damaged() from None

    def render(self, index: int, dpi: int) -> PixelArray:
        """The page, upright, on white. Raises InvalidInputError."""
        with self._bounded():
            try:
                width, height = map(int, self._exchange("render", page=index, dpi=dpi)["size"])
                if not 0 < width * height <= self._limits.max_pixels:
                    raise EOFError
                pixels = np.empty((height, width, 3), dtype=np.uint8)
                self._child.receive_into(memoryview(pixels.data).cast("B"))
            except (EOFError, BrokenPipeError, KeyError, TypeError, ValueError):
                raise self._lost() from None
        return pixels

    def close(self) -> None:
        """End the child process; may be called twice."""
        self._child.kill()
        with self._lock:  # whoever reads from the child has noticed
            if not self._closed:
                self._closed = True
                self._child.stop()

    def _ask(self, what: str, **request: Any) -> dict[str, Any]:
        with self._bounded():
            try:
                return self._exchange(what, **request)
            except (EOFError, BrokenPipeError, ValueError):
                raise self._lost() from None

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        with self._lock, self._child.killed_after(self._limits.page_seconds):
            if self._closed:
                raise self._lost()
            yield

    def _exchange(self, what: str, **request: Any) -> dict[str, Any]:
        text = json.dumps({"do": what, **request}).encode()
        self._child.send(len(text).to_bytes(LENGTH_BYTES, "little"), text)
        length = int.from_bytes(self._child.receive(LENGTH_BYTES), "little")
        if length > MAX_REPLY_BYTES:
            raise EOFError
        reply = json.loads(self._child.receive(length))
        if not isinstance(reply, dict):
            raise EOFError
        if "error" in reply:
            raise self._refusal(str(reply["error"]))
        return reply

    def _refusal(self, code: str) -> ModelError:
        if code == "password":
            message = "The document is encrypted; its 'password' is missing or wrong."
            return InvalidInputError(message, "password")
        size = re.fullmatch(r"pixels (\d{1,9}) x (\d{1,9})", code)
        if size:
            message = f"A page has {size[1]} x {size[2]} pixels at this resolution; "
            return InvalidInputError(
                message + f"the limit is {self._limits.max_pixels} pixels.", self._param
            )
        if code == "script":
            message = "The document runs a script when it is opened."
            return UnsupportedInputError(message, self._param)
        return self._lost() if code == "memory" else self._damaged()

    def _damaged(self) -> ModelError:
        return UnsupportedInputError("The document is damaged or incomplete.", self._param)

    def _lost(self) -> ModelError:
        return UnsupportedInputError(
            "The document takes too much time or memory to read.", self._param
        )

    def _integer(self, value: object) -> int:
        if not isinstance(value, int):
            raise self._damaged()
        return value


def _word(word: Any) -> OwnWord:
    text, *box = word
    return (str(text), *_box(*box))


def _box(left: Any, top: Any, right: Any, bottom: Any) -> Bounds:
    return float(left), float(top), float(right), float(bottom)
