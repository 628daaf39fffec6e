"""Bounded decoding of images from strangers.

The format is decided by magic bytes, never by a name or a media type. Pillow runs in child
processes under limits of memory and time (`models/ocr/image_child.py`), so the worst file costs one
child. Messages name sizes and limits, never a decoder's own words.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.child_process import ChildProcess
from models.errors import EngineDeadError, InvalidInputError, ModelError, UnsupportedInputError
from models.file_formats import sniff
from models.ocr import image_child
from models.types.pages import PixelArray

PARAM = "images"
CHILD = Path(image_child.__file__)
BASE_ADDRESS_SPACE = 384 * 2**20
"""What the interpreter and Pillow's libraries map, with room to spare."""
BYTES_PER_PIXEL = 20
"""Pixels as read, turned, with alpha, on white, and as RGB: the copies alive at once."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Bounds of one encoded image; `seconds` is wall time from request to last pixel."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 40_000_000
    seconds: float = 5.0

    @property
    def address_space(self) -> int:
        """Bytes that a decoding process may map."""
        return BASE_ADDRESS_SPACE + BYTES_PER_PIXEL * self.max_pixels

    @property
    def orphan_seconds(self) -> int:
        """After which such a process ends itself, should nobody be left to do so."""
        return 2 * math.ceil(self.seconds)


class ImageDecoder:
    """Decodes images in at most `workers` child processes, which start when first needed.

    Thread-safe; a call waits while all workers are busy.
    """

    def __init__(self, limits: ImageLimits | None = None, workers: int = 1) -> None:
        self.limits = limits or ImageLimits()
        self._places: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        self._workers = workers
        self._closed = False
        for _ in range(workers):
            self._places.put(None)

    def pixels(self, image: bytes | PixelArray) -> PixelArray:
        """A page of a request as pixels: decoded, unless it has been rendered already."""
        return self.decode(image) if isinstance(image, bytes) else image

    def decode(self, data: bytes, frame: int = 0) -> PixelArray:
        """uint8 RGB [height, width, 3] of one frame (others than 0: of TIFF), upright, on white.

        Raises InvalidInputError when the image is empty or above a limit, UnsupportedInputError
        when it is not an image of a known format, or damaged.
        """
        format_name = self._checked_format(data)
        with self._child() as child:
            return child.decode(data, format_name, frame, self.limits)

    def close(self) -> None:
        """End the child processes; waits for decodes in progress."""
        if self._closed:
            return
        self._closed = True
        for child in [self._places.get() for _ in range(self._workers)]:
            if child is not None:
                child.stop()
        for _ in range(self._workers):
            self._places.put(None)

    def _checked_format(self, data: bytes) -> str:
        if not data:
            raise InvalidInputError("The image is empty.", PARAM)
        if len(data) > self.limits.max_bytes:
            raise InvalidInputError(
                f"The image has {len(data)} bytes; the limit is {self.limits.max_bytes}.", PARAM
            )
        format_name = sniff(data)
        if format_name is None:
            raise UnsupportedInputError(
                "The image is not a PNG, JPEG, WebP, TIFF, BMP or GIF file.", PARAM
            )
        return format_name

    @contextmanager
    def _child(self) -> Iterator[_Child]:
        """A living child for one decode; a child that did not survive leaves its place empty."""
        child = _living(self._places.get())
        try:
            if self._closed:
                raise EngineDeadError("The image decoder has been closed.")
            child = child or _Child(self.limits)
            yield child
        finally:
            self._places.put(_living(child))


class _Child(ChildProcess):
    """One decoding process, used by one thread at a time."""

    def __init__(self, limits: ImageLimits) -> None:
        bounds = (limits.max_pixels, limits.address_space, limits.orphan_seconds)
        super().__init__(CHILD, bounds)

    def decode(self, data: bytes, format_name: str, frame: int, limits: ImageLimits) -> PixelArray:
        with self.killed_after(limits.seconds):
            try:
                self.send(image_child.REQUEST.pack(format_name.encode(), frame, len(data)), data)
                header = self.receive(image_child.REPLY.size)
                status, width, height = map(int, image_child.REPLY.unpack(header))
                if status == image_child.DECODED:
                    return self._pixels(width, height, limits)
            except (EOFError, BrokenPipeError):
                self.kill()
                raise UnsupportedInputError(
                    "The image takes too much time or memory to decode.", PARAM
                ) from None
        raise _refusal(status, width, height, limits)

    def _pixels(self, width: int, height: int, limits: ImageLimits) -> PixelArray:
        if not 0 < width * height <= limits.max_pixels:
            raise EOFError  # not what our script writes: the child is no longer ours
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        self.receive_into(memoryview(pixels.data).cast("B"))
        return pixels


def _living(child: _Child | None) -> _Child | None:
    """The child if it lives; a dead one is buried."""
    if child is None or child.alive:
        return child
    child.stop()
    return None


def _refusal(status: int, width: int, height: int, limits: ImageLimits) -> ModelError:
    if status == image_child.TOO_MANY_PIXELS:
        return InvalidInputError(
            f"The image has {width} x {height} pixels; the limit is {limits.max_pixels} pixels.",
            PARAM,
        )
    if status == image_child.OUT_OF_MEMORY:
        return UnsupportedInputError("The image takes too much memory to decode.", PARAM)
    return UnsupportedInputError("The image is damaged or incomplete.", PARAM)
