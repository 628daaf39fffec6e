"""What every text recogniser does: the weightless twin and the real engines on rendered pages.

Tesseract is the system's: where it is not installed its tests are skipped, and say so.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rapidocr
from PIL import Image

from models.errors import EngineDeadError, InvalidInputError, ModelError, UnsupportedInputError
from models.ocr.rapid import LANGUAGES, RapidOcrRecognizer
from models.ocr.tesseract import TesseractRecognizer
from models.toy.ocr import ToyTextRecognizer
from models.types.pages import OcrRequest, OcrResult, Page
from tests.rendered_pages import (
    ENGLISH,
    SAMPLES,
    character_error_rate,
    encoded,
    font_of,
    page,
    tight,
)

ROTATE_180 = Image.Transpose.ROTATE_180
WAIT = 120.0
MAX_ERROR_RATE = 0.02
MAX_ERROR_RATE_TESSERACT = 0.05
OTHER_LANGUAGES = {"french", "chinese", "japanese"}
"""Of samples; Tesseract has English and German here."""
SPECIAL_LETTERS = {
    **{"de": "äöüßÄÖÜ", "fr": "àâæçéèêëîïôœùûüÿ", "es": "ñáéíóúü¿", "pt": "ãõçáâàéêíóôú"},
    **{"pl": "ąćęłńóśźż", "cs": "čďěňřšťůž", "hu": "őű", "tr": "ğışçöüİ", "ro": "ăâîșț"},
    **{"lv": "āčēģīķļņšūž", "lt": "ąčęėįšųūž", "is": "ðþæö", "mt": "ċġħż", "cy": "ŵŷ"},
    **{"et": "õäöüšž", "az": "əğışçöü", "hr": "čćđšž", "da": "æøå", "zh": "中国", "ja": "あア"},
}
TEXT = ENGLISH


@pytest.fixture(scope="module")
def real() -> Iterator[RapidOcrRecognizer]:
    engine = RapidOcrRecognizer(n_threads=2)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def tesseract() -> Iterator[TesseractRecognizer]:
    if shutil.which("tesseract") is None:
        pytest.skip("tesseract is not installed (apt-get install tesseract-ocr tesseract-ocr-deu)")
    engine = TesseractRecognizer(n_threads=2)
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=["toy", "rapidocr", "tesseract"])
def recognizer(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param != "toy":
        yield request.getfixturevalue({"rapidocr": "real"}.get(request.param, request.param))
        return
    engine = ToyTextRecognizer()
    yield engine
    engine.close()


def answers(
    recognizer: Any, *requests: tuple[bytes, ...], languages: tuple[str, ...] = ()
) -> list[OcrResult | ModelError]:
    answer = recognizer.submit([OcrRequest(images, languages) for images in requests])
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


@pytest.mark.parametrize("name", SAMPLES)
def test_rapidocr_reads_what_was_drawn(real: RapidOcrRecognizer, name: str) -> None:
    """Also columns one after the other, and rows of tables and receipts as rows."""
    sample = SAMPLES[name]()
    found = read(real, sample.image)
    assert character_error_rate(sample.text, found.text) <= MAX_ERROR_RATE, found.text


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in OTHER_LANGUAGES])
def test_tesseract_reads_what_was_drawn(tesseract: TesseractRecognizer, name: str) -> None:
    sample = SAMPLES[name]()
    languages = ("de",) if name == "german" else ("en",)
    if name == "german" and "deu" not in tesseract.languages:
        pytest.skip("tesseract's German is not installed (apt-get install tesseract-ocr-deu)")
    (result,) = answers(tesseract, (encoded(sample.image),), languages=languages)
    assert isinstance(result, OcrResult), result
    found = result.pages[0].text
    assert character_error_rate(sample.text, found) <= MAX_ERROR_RATE_TESSERACT, found


@pytest.mark.parametrize("line", ["Invoice 2041", "Total 17", "Invoice 2024-117 for Miller"])
@pytest.mark.parametrize(("size", "margin"), [(24, 10), (32, 4), (48, 20)])
def test_pieces_of_a_tight_picture_are_read_once(
    real: RapidOcrRecognizer, line: str, size: int, margin: int
) -> None:
    """Detection enlarges small pictures and finds overlapping pieces of the one line."""
    found = read(real, tight(line, size, margin))
    assert [entry.text for entry in found.lines] == [line]


@pytest.mark.parametrize("engine", ["real", "tesseract"])
def test_words_are_where_they_were_drawn(engine: str, request: pytest.FixtureRequest) -> None:
    """Drawn alone at its place, a word covers the pixels of the box it was given."""
    recognizer = request.getfixturevalue(engine)
    words = ["Invoice", "for", "Miller", "and", "Sons"]
    found = read(recognizer, page([" ".join(words)], 32, font="sans"))
    assert [word.text for line in found.lines for word in line.words] == words
    for number, word in enumerate(found.lines[0].words):
        until = font_of("sans", 32).getlength(" ".join(words[: number + 1]))
        own = font_of("sans", 32).getlength(words[number])
        left, right = 40 + until - own, 40 + until
        (x1, _), (x2, _), _, _ = word.polygon
        assert abs(x1 - left) < 16
        assert abs(x2 - right) < 16
        assert 0 < word.confidence <= 1


@pytest.mark.parametrize("engine", ["real", "tesseract"])
def test_a_language_it_cannot_read_is_refused_by_name(
    engine: str, request: pytest.FixtureRequest
) -> None:
    recognizer = request.getfixturevalue(engine)
    image = (encoded(page(TEXT[:1])),)
    (good,) = answers(recognizer, image, languages=("eng",))
    assert isinstance(good, OcrResult)
    (refused,) = answers(recognizer, image, languages=("en", "tlh"))
    assert isinstance(refused, UnsupportedInputError)
    assert refused.param == "languages"
    assert "'tlh'" in refused.message
    assert "en" in refused.message


def test_rapidocr_has_the_letters_of_its_languages(real: RapidOcrRecognizer) -> None:
    letters = set(real.alphabet)
    for language, special in SPECIAL_LETTERS.items():
        assert language in LANGUAGES
        assert set(special) <= letters, language
    assert not set("ảấầẩẫậ") <= letters
    assert "vi" not in LANGUAGES


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
