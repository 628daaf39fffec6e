"""What every text recogniser does: the weightless twin and RapidOCR on rendered pages."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rapidocr
from PIL import Image

from models.errors import EngineDeadError, InvalidInputError, ModelError, UnsupportedInputError
from models.ocr.rapid import RapidOcrRecognizer
from models.toy.ocr import ToyTextRecognizer
from models.types import OcrRequest, OcrResult, Page
from tests.rendered_pages import character_error_rate, encoded, page, two_columns

ROTATE_180 = Image.Transpose.ROTATE_180
WAIT = 120.0
MAX_ERROR_RATE = 0.02
TEXT = (
    "The quick brown fox jumps over the lazy dog",
    "Invoice 2024-117 for Miller and Sons",
    "Total due: 1,234.56 EUR by 31 March",
)
LEFT = (
    "The first column has text",
    "that runs for several lines",
    "so that a reader goes down",
    "before going to the right.",
)
RIGHT = (
    "The second column follows",
    "and is read after the first",
    "because a gutter lies in",
    "between the two of them.",
)


@pytest.fixture(scope="module")
def real() -> Iterator[RapidOcrRecognizer]:
    engine = RapidOcrRecognizer(n_threads=2)
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=["toy", "rapidocr"])
def recognizer(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "rapidocr":
        yield request.getfixturevalue("real")
        return
    engine = ToyTextRecognizer()
    yield engine
    engine.close()


def answers(recognizer: Any, *requests: tuple[bytes, ...]) -> list[OcrResult | ModelError]:
    answer = recognizer.submit([OcrRequest(images) for images in requests])
    results: list[OcrResult | ModelError] = answer.result(WAIT)
    return results


def read(recognizer: Any, image: Image.Image, **options: Any) -> Page:
    (result,) = answers(recognizer, (encoded(image, **options),))
    assert isinstance(result, OcrResult), result
    (only,) = result.pages
    return only


def outline(page: Page) -> tuple[float, float, float, float]:
    """The bounds of all lines: left, top, right, bottom."""
    corners = np.array([line.polygon for line in page.lines]).reshape(-1, 2)
    left, top = corners.min(axis=0)
    right, bottom = corners.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def ink_outline(image: Image.Image) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(np.asarray(image.convert("L")) < 128)
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_a_blank_page_has_its_size_and_no_lines(recognizer: Any) -> None:
    assert read(recognizer, Image.new("RGB", (300, 200), "white")) == Page(300, 200, ())


@pytest.mark.parametrize("size", [(1, 1), (300, 2)])
def test_odd_shapes_are_pages_too(recognizer: Any, size: tuple[int, int]) -> None:
    found = read(recognizer, Image.new("RGB", size, "white"))
    assert (found.width, found.height) == size


@pytest.mark.parametrize("scale", [1, 4])
def test_boxes_are_in_pixels_of_the_original(recognizer: Any, scale: int) -> None:
    """Also when detection works on a smaller copy of a large page."""
    image = page(TEXT, size=24 * scale, width=800 * scale)
    found = read(recognizer, image)
    assert (found.width, found.height) == image.size
    assert np.allclose(outline(found), ink_outline(image), atol=10 * scale)
    for line in found.lines:
        assert 0 < line.confidence <= 1
        assert all(0 <= x <= found.width and 0 <= y <= found.height for x, y in line.polygon)
        (x1, y1), (x2, y2), (x3, y3), (x4, y4) = line.polygon
        assert x1 < x2
        assert y1 < y4
        assert x4 < x3
        assert y2 < y3


def test_pages_are_read_upright(recognizer: Any) -> None:
    """Turned by EXIF, the file's pixels lie on their side; sizes and boxes are the viewer's."""
    image = page(TEXT)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = image.transpose(Image.Transpose.ROTATE_90)
    found = read(recognizer, turned, format_name="JPEG", exif=exif, quality=95)
    assert (found.width, found.height) == image.size
    assert np.allclose(outline(found), ink_outline(image), atol=10)


def test_reading_alone_and_in_a_batch_is_the_same(recognizer: Any) -> None:
    images = [encoded(page(TEXT[:1], size=20)), encoded(page(TEXT[1:], size=16, width=500))]
    together = answers(recognizer, *[(image,) for image in images])
    assert together == [answers(recognizer, (image,))[0] for image in images]
    assert answers(recognizer, tuple(images)) == [
        OcrResult(tuple(p for r in together if isinstance(r, OcrResult) for p in r.pages))
    ]


def test_a_bad_image_fails_its_own_request_only(recognizer: Any) -> None:
    good = encoded(page(TEXT[:1]))
    first, cut, svg, last = answers(
        recognizer, (good,), (good, good[: len(good) // 2]), (b"<svg></svg>",), (good,)
    )
    assert isinstance(first, OcrResult)
    assert first == last
    assert isinstance(cut, UnsupportedInputError)
    assert isinstance(svg, InvalidInputError)


def test_a_dead_decoder_costs_one_request_at_most(recognizer: Any) -> None:
    image = page(TEXT[:1])
    before = read(recognizer, image)
    for child in list(recognizer._decoder._places.queue):
        if child is not None:
            os.kill(child._process.pid, signal.SIGKILL)
            child._process.wait()
    assert read(recognizer, image) == before


def test_no_images_no_pages(recognizer: Any) -> None:
    assert recognizer.submit([]).result(WAIT) == []
    assert answers(recognizer, ()) == [OcrResult(())]


def test_after_close_nothing_is_taken() -> None:
    engine = ToyTextRecognizer()
    assert engine.memory_bytes == 0
    engine.close()
    engine.close()
    with pytest.raises(EngineDeadError):
        engine.submit([OcrRequest((b"",))])


@pytest.mark.parametrize("size", [14, 48])
def test_rendered_text_is_read(real: RapidOcrRecognizer, size: int) -> None:
    found = read(real, page(TEXT, size=size, width=max(800, 28 * size)))
    assert character_error_rate("\n".join(TEXT), found.text) <= MAX_ERROR_RATE


def test_columns_are_read_one_after_the_other(real: RapidOcrRecognizer) -> None:
    found = read(real, two_columns(LEFT, RIGHT))
    assert character_error_rate("\n".join((*LEFT, *RIGHT)), found.text) <= MAX_ERROR_RATE


def test_upside_down_lines_are_read(real: RapidOcrRecognizer) -> None:
    found = read(real, page(["Upside down"], size=32, width=400).transpose(ROTATE_180))
    assert found.text == "Upside down"


def test_lines_are_those_of_the_library(real: RapidOcrRecognizer) -> None:
    """The same networks called one page at a time by the library's own pipeline."""
    image = page(TEXT, size=20)
    library = rapidocr.RapidOCR(params={"Global.log_level": "critical"})
    expected = library(np.asarray(image)[:, :, ::-1])
    found = read(real, image)
    assert tuple(line.text for line in found.lines) == tuple(expected.txts)
    ours = np.array([line.polygon for line in found.lines])
    assert np.allclose(ours, expected.boxes, atol=2)


def test_the_weights_are_counted_and_close_is_final() -> None:
    engine = RapidOcrRecognizer(n_threads=1)
    assert 20e6 < engine.memory_bytes < 100e6
    engine.close()
    engine.close()
    with pytest.raises(EngineDeadError):
        engine.submit([OcrRequest((b"",))])
