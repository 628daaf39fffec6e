"""Which engine reads a catalogue entry's pages, and a Tesseract that is absent, broken or slow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from config.catalog import ModelSpec
from config.settings import AppConfig
from deployments.engines import Resources, text_recognizer
from models.batching import BatchStats
from models.errors import ModelError, ModelLoadError, UnsupportedInputError
from models.ocr.paddle_torch import DETECTION, RECOGNITION, is_paddle_folder
from models.ocr.tesseract import TesseractRecognizer
from models.ocr.vision_decoder import VisionLineRecognizer
from models.types.pages import OcrRequest, OcrResult
from tests.tiny_vision import write_trocr

WAIT = 60.0
PAGE = np.full((20, 30, 3), 255, dtype=np.uint8)
LISTING = """[ "$1" = --list-langs ] && printf 'List of 3:\\neng\\ndeu\\nosd\\n' && exit 0
"""


def spec(engine: str, **entry: object) -> ModelSpec:
    source = {"kind": "builtin"}
    return ModelSpec.model_validate(
        {"id": "ocr", "task": "ocr", "engine": engine, "source": source, **entry}
    )


def program(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called tesseract, the first of that name."""
    file = path / "tesseract"
    file.write_text(f"#!/bin/sh\n{script}")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")


def read(engine: TesseractRecognizer, languages: tuple[str, ...] = ()) -> OcrResult | ModelError:
    (result,) = engine.submit([OcrRequest((PAGE,), languages)]).result(WAIT)
    engine.close()
    return result


def test_without_tesseract_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelLoadError, match="apt-get install tesseract-ocr"):
        text_recognizer(spec("tesseract"), AppConfig(), Resources(1))


def test_the_engines_are_told_who_hears_of_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, f"{LISTING}cat >/dev/null\n", monkeypatch)
    for name in ("tesseract", "toy"):
        told: list[BatchStats] = []
        resources = Resources(1, on_batch=told.append)
        engine = text_recognizer(spec(name), AppConfig(), resources)
        engine.submit([OcrRequest((PAGE, PAGE))]).result(WAIT)
        engine.close()
        assert [batch.items for batch in told] == [2]


def test_pages_go_in_as_pixels_with_the_files_of_their_languages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "not for the program")
    script = (
        f'{LISTING}echo "$@" >{tmp_path}/arguments; env >{tmp_path}/env; cat >{tmp_path}/page\n'
    )
    program(tmp_path, script, monkeypatch)
    entry = spec("tesseract", engine_options={"page_segmentation": 6})
    engine = text_recognizer(entry, AppConfig(), Resources(1))
    assert isinstance(engine, TesseractRecognizer)
    assert engine.memory_bytes == 0
    assert engine.languages == {"eng", "deu"}
    result = read(engine, ("German", "de", "ger", "en")[1:])
    assert isinstance(result, OcrResult)
    assert result.pages[0].lines == ()
    assert (tmp_path / "arguments").read_text() == "- - -l deu+eng --psm 6 tsv\n"
    assert (tmp_path / "page").read_bytes() == b"P6 30 20 255\n" + PAGE.tobytes()
    environment = (tmp_path / "env").read_text()
    assert "OMP_THREAD_LIMIT=1" in environment
    assert "SECRET" not in environment


def test_a_default_language_must_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, LISTING, monkeypatch)
    with pytest.raises(ModelLoadError, match="'fr'; it reads: deu, eng"):
        TesseractRecognizer(n_threads=1, languages=["fr"])
    program(tmp_path, "echo List", monkeypatch)
    with pytest.raises(ModelLoadError, match="no languages"):
        TesseractRecognizer(n_threads=1)


def test_a_page_that_takes_too_long_ends_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, f"{LISTING}echo $$ >{tmp_path}/pid; exec sleep 600\n", monkeypatch)
    result = read(TesseractRecognizer(n_threads=1, page_seconds=3.0))  # a shell starts sooner
    assert isinstance(result, UnsupportedInputError)
    assert result.message == "The page takes too much time to read."
    pid = (tmp_path / "pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()


def test_a_program_that_fails_is_the_pages_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, f"{LISTING}echo /secret/path >&2; exit 1\n", monkeypatch)
    result = read(TesseractRecognizer(n_threads=1))
    assert isinstance(result, UnsupportedInputError)
    assert result.message == "Tesseract cannot read the page."


def test_a_folder_of_transformers_is_read_by_what_it_holds(tmp_path: Path) -> None:
    write_trocr(tmp_path / "trocr")
    source = {"kind": "path", "path": str(tmp_path / "trocr")}
    config = AppConfig(model_roots=[str(tmp_path)])
    engine = text_recognizer(spec("transformers", source=source), config, Resources(1))
    assert isinstance(engine, VisionLineRecognizer)
    engine.close()
    assert not is_paddle_folder(tmp_path)
    for name in (DETECTION, RECOGNITION):
        (tmp_path / name).touch()
    assert is_paddle_folder(tmp_path)
