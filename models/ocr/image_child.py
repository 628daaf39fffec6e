"""The process that decodes images for `models/ocr/images.py`; it may be killed at any time.

Run as a script: it imports the standard library and Pillow, nothing else of this project. It reads
REQUEST headers and bytes from stdin, writes REPLY headers and RGB pixels to stdout, and ends with
its stdin. Limits of the operating system bound what a hostile file can make a decoder do.
"""

from __future__ import annotations

import io
import resource
import signal
import struct
import sys
import zlib
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from PIL import Image

REQUEST = struct.Struct("<8sIQ")
"""Pillow's format name, frame, number of bytes that follow."""
REPLY = struct.Struct("<BQQ")
"""Status, width, height; with DECODED, width * height * 3 bytes of RGB follow."""

DECODED, UNREADABLE, TOO_MANY_PIXELS, OUT_OF_MEMORY = range(4)

MAX_FRAMES = 1000
"""Of an animation whose first frame is read: more are no picture of a page."""

ORIENTATION_TAG = 0x0112
ORIENTATIONS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def main() -> None:
    max_pixels, address_space, seconds = map(int, sys.argv[1:])
    for limit, value in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    _serve(sys.stdin.buffer, sys.stdout.buffer, max_pixels, seconds)


def _serve(requests: BinaryIO, replies: BinaryIO, max_pixels: int, seconds: int = 0) -> None:
    """Ends the process when an image takes so long: whoever should do so may be gone."""
    while header := requests.read(REQUEST.size):
        name, frame, length = REQUEST.unpack(header)
        data = requests.read(length)
        format_name = name.rstrip(b"\0").decode()
        signal.alarm(seconds)
        status, width, height, pixels = _answer(data, format_name, frame, max_pixels)
        signal.alarm(0)
        replies.write(REPLY.pack(status, width, height))
        replies.write(pixels)
        replies.flush()


def _answer(
    data: bytes, format_name: str, frame: int, max_pixels: int
) -> tuple[int, int, int, bytes]:
    try:
        return _decode(data, format_name, frame, max_pixels)
    except MemoryError:
        return OUT_OF_MEMORY, 0, 0, b""
    except Exception:  # Pillow's decoders raise a zoo of types; the outcome is always the same
        return UNREADABLE, 0, 0, b""


def _decode(
    data: bytes, format_name: str, frame: int, max_pixels: int
) -> tuple[int, int, int, bytes]:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the check below is stricter and does not merely warn
    if format_name == "PNG":
        _check_png(data)
    with Image.open(io.BytesIO(data), formats=(format_name,)) as image:
        if format_name == "GIF" and getattr(image, "n_frames", 1) > MAX_FRAMES:
            return UNREADABLE, 0, 0, b""
        image.seek(frame)
        width, height = image.size
        if width * height > max_pixels:
            return TOO_MANY_PIXELS, width, height, b""
        if width * height == 0:
            return UNREADABLE, width, height, b""
        image.load()  # of a TIFF file this turns the pixels too, and takes the orientation away
        upright = _to_rgb(_upright(image))
    return DECODED, upright.width, upright.height, upright.tobytes()


def _check_png(data: bytes) -> None:
    """Raises ValueError when a chunk's checksum is wrong, or struct.error at a cut.

    Pillow does not check those of pixels, and a page with a damaged part would be read without it.
    """
    position = 8
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(memoryview(data)[position + 4 : end]) != checksum:
            raise ValueError
        position = end + 4


def _upright(image: Image.Image) -> Image.Image:
    """The image as viewers show it: turned as its EXIF orientation says."""
    from PIL import Image

    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, struct.error):  # broken EXIF, maybe a good image
        orientation = 1
    name = ORIENTATIONS.get(orientation)
    return image.transpose(Image.Transpose[name]) if name else image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Deep greys stretched to 8 bits, transparent parts white (black text stays readable)."""
    from PIL import Image

    if image.mode[0] in "IF":
        image = _stretched(image)
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _stretched(image: Image.Image) -> Image.Image:
    image = image.convert("F")
    low, high = image.getextrema()
    if not isinstance(low, float) or not isinstance(high, float) or high <= low:
        return image.point(lambda value: value * 0 + 255).convert("L")
    scale = 255 / (high - low)
    return image.point(lambda value: value * scale - low * scale).convert("L")


if __name__ == "__main__":
    main()
