"""Decoding of good, broken and hostile images in a bounded child process."""

from __future__ import annotations

import ast
import os
import signal
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import EngineDeadError, InvalidInputError, UnsupportedInputError
from models.file_formats import sniff
from models.ocr import images
from models.ocr.images import ImageDecoder, ImageLimits
from tests.rendered_pages import encoded

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
LIMITS = ImageLimits(max_bytes=1 << 20, max_pixels=200_000, seconds=30)


@pytest.fixture(scope="module")
def decoder() -> Iterator[ImageDecoder]:
    with_limits = ImageDecoder(LIMITS)
    yield with_limits
    with_limits.close()


def halves(width: int = 40, height: int = 20) -> Image.Image:
    """Left half black, right half white."""
    image = Image.new("RGB", (width, height), "white")
    image.paste("black", (0, 0, width // 2, height))
    return image


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: tuple[bytes, bytes], bits: int = 8) -> bytes:
    """A PNG that claims a size; `chunks` follow the header."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = b"".join(png_chunk(*chunk) for chunk in (*chunks, (b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_is_recognised_and_decoded(decoder: ImageDecoder, format_name: str) -> None:
    data = encoded(halves(), format_name)
    assert sniff(data) == format_name
    pixels = decoder.decode(data)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (20, 40, 3)
    assert pixels[:, :16].max() < 40
    assert pixels[:, 24:].min() > 215


@pytest.mark.parametrize("format_name", ["GIF", "TIFF"])
def test_of_several_frames_the_first_is_decoded(decoder: ImageDecoder, format_name: str) -> None:
    frames = [Image.new("L", (8, 8), shade) for shade in (10, 120, 240)]
    data = encoded(frames[0], format_name, save_all=True, append_images=frames[1:])
    assert decoder.decode(data).max() <= 12


@pytest.mark.parametrize(("orientation", "dark"), [(1, "left"), (3, "right"), (6, "top")])
def test_exif_orientation_is_applied(decoder: ImageDecoder, orientation: int, dark: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decoder.decode(encoded(halves(), "JPEG", exif=exif))
    parts = {"left": pixels[:, :5], "right": pixels[:, -5:], "top": pixels[:5]}
    assert parts[dark].max() < 60
    assert pixels.shape[:2] == ((40, 20) if orientation == 6 else (20, 40))


def test_transparent_parts_become_white(decoder: ImageDecoder) -> None:
    assert decoder.decode(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))).min() == 255


def test_sixteen_bit_greys_are_stretched(decoder: ImageDecoder) -> None:
    values = np.array([[0, 30_000], [15_000, 30_000]], dtype=np.uint16)
    pixels = decoder.decode(encoded(Image.fromarray(values)))
    assert pixels[:, :, 0].tolist() == [[0, 255], [127, 255]]


REFUSED = {
    "empty": b"",
    "text": b"hello",
    "html": b"<html><body><img src=x></body></html>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "pdf": b"%PDF-1.7\n",
    "fits": b"SIMPLE  =                    T" + b" " * 3000,
    "ico": b"\0\0\1\0\1\0" + b"\0" * 100,
    "psd": b"8BPS\0\1" + b"\0" * 100,
    "pickle": b"\x80\x04cposix\nsystem\n(S'true'\ntR.",
    "magic only": b"\x89PNG\r\n\x1a\n",
    "html behind a magic": b"\xff\xd8\xff<html></html>",
    "claims 2^31 squared": png(2**31 - 1, 2**31 - 1),
    "50000 squared": png(50_000, 50_000, (b"IDAT", zlib.compress(b"\0" * 9999)), bits=1),
    "13000 squared": png(13_000, 13_000, (b"IDAT", zlib.compress(bytes(9999)))),
    "no pixels": png(0, 0, (b"IDAT", zlib.compress(b""))),
    "text bomb": png(1, 1, (b"zTXt", b"k\0\0" + zlib.compress(b"x" * 50_000_000, 9))),
    "too many bytes": b"BM" + b"\0" * LIMITS.max_bytes,
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_bytes_are_the_requests_fault(decoder: ImageDecoder, name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        decoder.decode(REFUSED[name])
    assert caught.value.param == "images"
    for leak in ("0x", "object at", "/", "Traceback", "PIL"):
        assert leak not in caught.value.message
    assert decoder.decode(encoded(halves())).shape == (20, 40, 3)


def test_a_png_with_a_wrong_checksum_is_refused(decoder: ImageDecoder) -> None:
    """Of its pixels; Pillow alone would show the rest and leave out what is damaged."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    data = bytearray(encoded(Image.fromarray(noise)))
    start = data.index(b"IDAT")
    data[start + 5000] ^= 1
    with pytest.raises(UnsupportedInputError, match="damaged"):
        decoder.decode(bytes(data))


def animation(frames: int) -> bytes:
    """A GIF file of frames of one pixel each."""
    first = encoded(Image.new("P", (1, 1)), "GIF")
    block = first[first.index(b",") : -1]
    return first[:-1] + block * (frames - 1) + b";"


def test_animations_are_read_by_their_first_frame_unless_they_are_endless(
    decoder: ImageDecoder,
) -> None:
    assert decoder.decode(animation(999)).shape == (1, 1, 3)
    with pytest.raises(UnsupportedInputError):
        decoder.decode(animation(5000))


@pytest.mark.parametrize("format_name", FORMATS)
def test_cut_files_are_refused(decoder: ImageDecoder, format_name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format_name)
    with pytest.raises(UnsupportedInputError, match="damaged"):
        decoder.decode(data[: len(data) // 3])


def test_the_pixel_limit_names_both_numbers(decoder: ImageDecoder) -> None:
    data = encoded(Image.new("1", (1000, 201)))
    with pytest.raises(InvalidInputError, match=r"1000 x 201 pixels; the limit is 200000"):
        decoder.decode(data)


def test_the_child_maps_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "BASE_ADDRESS_SPACE", 192 << 20)
    monkeypatch.setattr(images, "BYTES_PER_PIXEL", 0)
    decoder = ImageDecoder(ImageLimits(seconds=30))
    with pytest.raises(UnsupportedInputError, match="memory"):
        decoder.decode(encoded(Image.new("L", (6000, 6000))))
    assert decoder.decode(encoded(halves())).shape == (20, 40, 3)
    decoder.close()


SABOTAGED_CHILD = """
import os, resource, signal, sys, time
sys.stdin.buffer.read(20)
{fault}
"""
FAULTS = {
    "segfault": "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
    "os.kill(os.getpid(), signal.SIGSEGV)",
    "exit": "os._exit(3)",
    "hang": "time.sleep(600)",
    "half a reply": "sys.stdout.buffer.write(bytes(5)); sys.stdout.flush()",
    "half the pixels": "import struct; sys.stdout.buffer.write("
    "struct.pack('<BQQ', 0, 40, 20) + bytes(99)); sys.stdout.flush()",
    "absurd size": "import struct; sys.stdout.buffer.write("
    "struct.pack('<BQQ', 0, 1 << 40, 1 << 20)); sys.stdout.flush(); time.sleep(600)",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_child_that_fails_costs_one_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    script = tmp_path / "child.py"
    script.write_text(SABOTAGED_CHILD.format(fault=FAULTS[fault]))
    decoder = ImageDecoder(ImageLimits(seconds=0.5 if fault == "hang" else 30))
    with monkeypatch.context() as patch:
        patch.setattr(images, "CHILD", script)
        with pytest.raises(UnsupportedInputError, match="time or memory"):
            decoder.decode(encoded(halves()))
    decoder.limits = LIMITS
    assert decoder.decode(encoded(halves())).shape == (20, 40, 3)
    decoder.close()


def child_pid(decoder: ImageDecoder) -> int:
    child: Any = decoder._places.queue[0]
    return int(child._process.pid)


def test_a_child_killed_while_idle_is_replaced() -> None:
    decoder = ImageDecoder(LIMITS)
    decoder.decode(encoded(halves()))
    first = child_pid(decoder)
    os.kill(first, signal.SIGKILL)
    decoder._places.queue[0]._process.wait()  # type: ignore[union-attr]
    assert decoder.decode(encoded(halves())).shape == (20, 40, 3)
    assert child_pid(decoder) != first
    decoder.close()


def test_one_child_serves_many_images() -> None:
    decoder = ImageDecoder(LIMITS)
    pids = set()
    for width in range(4, 10):
        assert decoder.decode(encoded(halves(width))).shape == (20, width, 3)
        pids.add(child_pid(decoder))
    assert len(pids) == 1
    decoder.close()


def test_threads_share_the_children_and_get_their_own_images() -> None:
    decoder = ImageDecoder(LIMITS, workers=2)
    widths: dict[int, int] = {}

    def decode(width: int) -> None:
        widths[width] = decoder.decode(encoded(halves(width))).shape[1]

    threads = [threading.Thread(target=decode, args=(10 + i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert widths == {10 + i: 10 + i for i in range(8)}
    decoder.close()


def test_close_ends_the_children_and_later_calls() -> None:
    decoder = ImageDecoder(LIMITS)
    decoder.decode(encoded(halves()))
    pid = child_pid(decoder)
    decoder.close()
    decoder.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(EngineDeadError):
        decoder.decode(encoded(halves()))


def test_the_child_imports_the_standard_library_and_pillow_only() -> None:
    """It runs with -I, where the project cannot be imported."""
    tree = ast.parse(Path(images.CHILD).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "models" not in {str(name).partition(".")[0] for name in imported}
    assert imported <= {"__future__", "typing", "PIL"}
