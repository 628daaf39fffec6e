"""The decoding loop of the child process, run in this process on byte streams."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from models.ocr import image_child
from models.ocr.image_child import REPLY, REQUEST
from tests.rendered_pages import encoded


def replies(*requests: tuple[str, bytes], max_pixels: int = 100) -> list[tuple[int, int, int]]:
    """Status, width and height of each reply; pixels are checked for their number."""
    sent = b"".join(REQUEST.pack(name.encode(), 0, len(data)) + data for name, data in requests)
    received = io.BytesIO()
    image_child._serve(io.BytesIO(sent), received, max_pixels)
    received.seek(0)
    found = []
    while header := received.read(REPLY.size):
        status, width, height = REPLY.unpack(header)
        if status == image_child.DECODED:
            assert len(received.read(3 * width * height)) == 3 * width * height
        found.append((status, width, height))
    return found


def test_every_request_gets_one_reply_in_order() -> None:
    good = encoded(Image.new("L", (3, 2)))
    wide = encoded(Image.new("L", (101, 1)))
    assert replies(("PNG", good), ("PNG", b"junk"), ("PNG", wide), ("PNG", good)) == [
        (image_child.DECODED, 3, 2),
        (image_child.UNREADABLE, 0, 0),
        (image_child.TOO_MANY_PIXELS, 101, 1),
        (image_child.DECODED, 3, 2),
    ]


def test_only_the_named_format_is_tried() -> None:
    png = encoded(Image.new("L", (3, 2)))
    assert replies(("GIF", png)) == [(image_child.UNREADABLE, 0, 0)]


def test_running_out_of_memory_has_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(image_child, "_decode", exhausted)
    assert replies(("PNG", b"x")) == [(image_child.OUT_OF_MEMORY, 0, 0)]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("P", 0, None),
        ("LA", (0, 0), (255, 255, 255)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("F", 0.5, (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(mode: str, colour: object, expected: object) -> None:
    image = image_child._to_rgb(Image.new(mode, (2, 2), colour))  # type: ignore[arg-type]
    assert image.mode == "RGB"
    assert expected is None or image.getpixel((0, 0)) == expected


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_of_a_file_is_undone_once(orientation: int, format_name: str) -> None:
    """Of some formats Pillow turns the pixels itself when it loads them."""
    upright = Image.new("L", (3, 2))
    upright.putdata([0, 40, 80, 120, 160, 200])
    inverse = {6: "ROTATE_90", 8: "ROTATE_270"}
    name = inverse.get(orientation, image_child.ORIENTATIONS.get(orientation))
    stored = upright.transpose(Image.Transpose[name]) if name else upright
    exif = Image.Exif()
    exif[image_child.ORIENTATION_TAG] = orientation
    data = encoded(stored, format_name, exif=exif)
    status, width, height, pixels = image_child._decode(data, format_name, 0, 100)
    assert (status, width, height) == (image_child.DECODED, 3, 2)
    assert pixels == upright.convert("RGB").tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_undone(orientation: int) -> None:
    """The stored image is made from the upright one by the inverse of Pillow's own table."""
    upright = Image.new("L", (3, 2))
    upright.putdata([0, 40, 80, 120, 160, 200])
    inverse = {6: "ROTATE_90", 8: "ROTATE_270"}
    name = inverse.get(orientation, image_child.ORIENTATIONS.get(orientation))
    stored = upright.transpose(Image.Transpose[name]) if name else upright
    stored.getexif()[image_child.ORIENTATION_TAG] = orientation
    turned = image_child._upright(stored)
    assert turned.size == upright.size
    assert turned.tobytes() == upright.tobytes()


def test_a_clock_runs_while_an_image_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def answer(*given: object) -> tuple[int, int, int, bytes]:
        seen.append(given[0])
        return image_child.UNREADABLE, 0, 0, b""

    monkeypatch.setattr(image_child.signal, "alarm", seen.append)
    monkeypatch.setattr(image_child, "_answer", answer)
    sent = REQUEST.pack(b"PNG", 0, 1) + b"x"
    image_child._serve(io.BytesIO(sent), io.BytesIO(), 100, 7)
    assert seen == [7, b"x", 0]
