"""Recognisers on transformers: tiny random encoder-decoders, and PP-OCRv6's own weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, VisionEncoderDecoderModel

from models.errors import EngineDeadError, ModelLoadError, UnsupportedInputError
from models.ocr.image_to_text import ImageToText
from models.ocr.paddle_torch import DETECTION, LETTERS, RECOGNITION, PaddleTorchRecognizer
from models.ocr.rapid import RapidOcrRecognizer
from models.ocr.vision_decoder import (
    VisionLineRecognizer,
    VisionPageRecognizer,
    vision_decoder_recognizer,
)
from models.types.pages import OcrRequest, OcrResult, Page
from tests.rendered_pages import ENGLISH, SAMPLES, character_error_rate, encoded, page
from tests.tiny_models import tokenizer, write_encoder
from tests.tiny_vision import write_donut, write_trocr

WAIT = 240.0
TOKENS = 12
MAX_ERROR_RATE = 0.02


@pytest.fixture(scope="module")
def trocr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trocr(tmp_path_factory.mktemp("trocr"))


@pytest.fixture(scope="module")
def donut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_donut(tmp_path_factory.mktemp("donut"))


@pytest.fixture(scope="module")
def paddle(starter_weights: Callable[[str], Path]) -> Iterator[PaddleTorchRecognizer]:
    engine = PaddleTorchRecognizer(starter_weights("pp-ocrv6-torch"), n_threads=1)
    yield engine
    engine.close()


def pages(recognizer: Any, *images: bytes, languages: tuple[str, ...] = ()) -> list[Page]:
    (result,) = recognizer.submit([OcrRequest(images, languages)]).result(WAIT)
    assert isinstance(result, OcrResult), result
    return list(result.pages)


def pictures() -> list[np.ndarray]:
    return [np.asarray(page([line], 20 + 4 * n, 700)) for n, line in enumerate(ENGLISH)]


@pytest.mark.parametrize("family", ["trocr", "donut"])
def test_text_and_confidence_are_those_of_generate(
    family: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(family)
    model = VisionEncoderDecoderModel.from_pretrained(path).eval()
    processor = AutoImageProcessor.from_pretrained(path, backend="pil")
    ours = ImageToText(path, n_threads=1, max_new_tokens=TOKENS)
    for picture in pictures():
        with torch.inference_mode():
            out = model.generate(
                processor(picture, return_tensors="pt")["pixel_values"],
                max_new_tokens=TOKENS,
                return_dict_in_generate=True,
                output_scores=True,
            )
        (chances,) = model.compute_transition_scores(
            out.sequences, out.scores, normalize_logits=True
        )
        (text,) = tokenizer(typed=False, limit=64).batch_decode(
            out.sequences[:, 1:], skip_special_tokens=True
        )
        (read,) = ours.read([picture])
        assert read.text == text.strip()
        assert read.confidence == pytest.approx(float(chances.mean().exp()), abs=1e-4)


def test_pictures_read_together_are_read_as_alone(trocr: Path) -> None:
    model = ImageToText(trocr, n_threads=1, max_new_tokens=TOKENS, batch_images=2)
    together = model.read(pictures())
    for picture, read in zip(pictures(), together, strict=True):
        (alone,) = model.read([picture])
        assert alone.text == read.text
        assert alone.confidence == pytest.approx(read.confidence, abs=1e-4)
    assert model.read([]) == []


def test_a_prompt_is_where_the_decoder_starts(donut: Path) -> None:
    plain = ImageToText(donut, n_threads=1, max_new_tokens=TOKENS)
    prompted = ImageToText(donut, n_threads=1, max_new_tokens=TOKENS, prompt="[CLS] abc")
    (first,), (second,) = plain.read(pictures()[:1]), prompted.read(pictures()[:1])
    assert first.text != second.text
    assert not second.text.startswith("a ##b ##c")


def test_positions_bound_what_is_written(donut: Path) -> None:
    (read,) = ImageToText(donut, n_threads=1, max_new_tokens=10_000).read(pictures()[:1])
    assert 0 < len(read.text.split()) <= 62


def test_lines_are_found_by_the_detector(trocr: Path) -> None:
    engine = vision_decoder_recognizer(trocr, n_threads=1, max_new_tokens=4)
    assert isinstance(engine, VisionLineRecognizer)
    assert engine.memory_bytes > 10e6
    (found,) = pages(engine, encoded(page(ENGLISH)))
    assert len(found.lines) == len(ENGLISH)
    tops = [line.polygon[0][1] for line in found.lines]
    assert tops == sorted(tops)
    assert all(0 < line.confidence <= 1 and line.text for line in found.lines)
    engine.close()
    with pytest.raises(EngineDeadError):
        engine.submit([OcrRequest((b"",))])


def test_whole_pages_have_no_places(donut: Path) -> None:
    engine = vision_decoder_recognizer(donut, n_threads=1, max_new_tokens=4, languages=["eng"])
    assert isinstance(engine, VisionPageRecognizer)
    good = encoded(page(ENGLISH))
    first, second, third = engine.submit(
        [OcrRequest((good,)), OcrRequest((good[:99],)), OcrRequest((good,), ("de",))]
    ).result(WAIT)
    assert isinstance(first, OcrResult)
    (only,) = first.pages
    assert (only.width, only.height) == (800, 224)
    assert [line.polygon for line in only.lines] == [((0, 0), (800, 0), (800, 224), (0, 224))]
    assert isinstance(second, UnsupportedInputError)
    assert isinstance(third, UnsupportedInputError)
    assert third.message == "This model does not read the language 'de'; it reads: en."
    assert engine.alive
    engine.close()
    assert not engine.alive


def test_what_a_model_reads_can_be_said(donut: Path) -> None:
    engine = vision_decoder_recognizer(donut, n_threads=1, reads="lines")
    assert isinstance(engine, VisionLineRecognizer)
    engine.close()


def test_other_folders_are_refused(tmp_path: Path, trocr: Path) -> None:
    with pytest.raises(ModelLoadError, match="vision-encoder-decoder"):
        ImageToText(write_encoder(tmp_path / "bert", "bert"), n_threads=1)
    with pytest.raises(ModelLoadError, match=r"no config\.json"):
        ImageToText(tmp_path, n_threads=1)
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in trocr.iterdir():
        if file.name != "preprocessor_config.json":
            (bare / file.name).symlink_to(file)
    with pytest.raises(ModelLoadError, match="image processor"):
        ImageToText(bare, n_threads=1)


@pytest.mark.weights
@pytest.mark.parametrize("name", SAMPLES)
def test_paddle_in_torch_reads_what_was_drawn(paddle: PaddleTorchRecognizer, name: str) -> None:
    sample = SAMPLES[name]()
    (found,) = pages(paddle, encoded(sample.image))
    assert character_error_rate(sample.text, found.text) <= MAX_ERROR_RATE, found.text


@pytest.mark.weights
def test_paddle_in_torch_finds_what_onnx_finds(paddle: PaddleTorchRecognizer) -> None:
    onnx = RapidOcrRecognizer(n_threads=1)
    image = encoded(SAMPLES["columns"]().image)
    (ours,), (theirs,) = pages(paddle, image), pages(onnx, image)
    onnx.close()
    assert [line.text for line in ours.lines] == [line.text for line in theirs.lines]
    for one, other in zip(ours.lines, theirs.lines, strict=True):
        assert np.allclose(one.polygon, other.polygon, atol=3)
        assert one.confidence == pytest.approx(other.confidence, abs=0.02)
        assert [word.text for word in one.words] == [word.text for word in other.words]


@pytest.mark.weights
def test_lines_of_a_batch_are_read_as_alone(paddle: PaddleTorchRecognizer) -> None:
    images = [encoded(SAMPLES[name]().image) for name in ("table", "receipt")]
    together = pages(paddle, *images)
    for image, found in zip(images, together, strict=True):
        (alone,) = pages(paddle, image)
        assert [line.text for line in alone.lines] == [line.text for line in found.lines]
    assert pages(paddle, encoded(page([])))[0].lines == ()


@pytest.mark.weights
def test_other_weights_are_no_paddle(
    paddle: PaddleTorchRecognizer, starter_weights: Callable[[str], Path], tmp_path: Path
) -> None:
    assert 25e6 < paddle.memory_bytes < 50e6
    path = starter_weights("pp-ocrv6-torch")
    with pytest.raises(ModelLoadError, match=LETTERS):
        PaddleTorchRecognizer(tmp_path, n_threads=1)
    (tmp_path / LETTERS).symlink_to(path / LETTERS)
    with pytest.raises(ModelLoadError, match="missing"):
        PaddleTorchRecognizer(tmp_path, n_threads=1)
    (tmp_path / DETECTION).symlink_to(path / RECOGNITION)
    with pytest.raises(ModelLoadError, match="does not fit"):
        PaddleTorchRecognizer(tmp_path, n_threads=1)


@pytest.mark.parametrize("family", ["trocr", "donut"])
def test_pictures_of_one_pixel_in_height_are_read(
    family: str, request: pytest.FixtureRequest
) -> None:
    model = ImageToText(request.getfixturevalue(family), n_threads=1, max_new_tokens=TOKENS)
    assert len(model.read([np.zeros((1, 40, 3), np.uint8), np.zeros((3, 40, 3), np.uint8)])) == 2
