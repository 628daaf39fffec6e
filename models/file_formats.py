"""What a file is, by its own bytes: never by a name or a media type."""

from __future__ import annotations

import mmap
import struct

PDF_MAGIC = b"%PDF-"
PDF_MAGIC_WITHIN = 1024
"""Readers of PDF accept junk before the header, of this many bytes."""


def sniff(data: bytes) -> str | None:
    """Pillow's name of the image format that these bytes start like, if it is an allowed one."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    return "BMP" if data.startswith(b"BM") else None


def sniff_document(data: bytes) -> str | None:
    """As `sniff`, and "PDF"; the first kilobyte of the file is enough."""
    return sniff(data) or ("PDF" if PDF_MAGIC in data[:PDF_MAGIC_WITHIN] else None)


def tiff_frames(data: bytes | mmap.mmap, limit: int) -> int:
    """Frames of a TIFF file, counted along its chain of directories, at most `limit`.

    A damaged or circular chain ends where it is damaged: reading that frame fails later. Layout of
    TIFF 6.0: byte order, 42, offset of the first directory; a directory is its number of entries,
    twelve bytes for each, the offset of the next.
    """
    order = "<" if data[:2] == b"II" else ">"
    seen: set[int] = set()
    try:
        (offset,) = struct.unpack_from(order + "I", data, 4)
        while offset and offset not in seen and len(seen) < limit:
            (entries,) = struct.unpack_from(order + "H", data, offset)
            seen.add(offset)
            (offset,) = struct.unpack_from(order + "I", data, offset + 2 + 12 * entries)
    except struct.error:
        pass
    return len(seen)
