"""Which models of layout an OCR entry of the catalogue gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from config.catalog import ModelSpec
from config.settings import AppConfig
from deployments.engines import Resources
from deployments.layout import page_recognizer
from models.base import TextRecognizer
from models.errors import InvalidInputError, ModelLoadError
from models.toy.ocr import ToyTextRecognizer
from models.types.pages import OcrRequest
from tests.rendered_pages import encoded


def recognizer(tmp_path: Path, **options: Any) -> TextRecognizer:
    spec = ModelSpec.model_validate(
        {
            "id": "pages",
            "task": "ocr",
            "engine": "toy",
            "source": {"kind": "builtin"},
            "engine_options": options,
        }
    )
    config = AppConfig(weights_dir=tmp_path, offline=True)
    return page_recognizer(spec, config, Resources(n_threads=1))


def test_without_layout_the_engine_is_as_it_is(tmp_path: Path) -> None:
    engine = recognizer(tmp_path, max_queued=3)
    assert type(engine) is ToyTextRecognizer
    engine.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tables": "slanet-plus"}, "tables without layout"),
        ({"layout": "no-such-model"}, "no layout model 'no-such-model'"),
        ({"layout": "cl100k-base"}, "no layout model 'cl100k-base'"),
        ({"layout": True}, "no layout model 'True'"),
    ],
)
def test_options_that_name_no_model_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        recognizer(tmp_path, **options)


def test_offline_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="layout-cdla"):
        recognizer(tmp_path, layout="layout-cdla")


class Nothing:
    """A detector that needs no weights."""

    memory_bytes = 0

    def __init__(self, file: Path, n_threads: int) -> None:
        pass

    def regions(self, pixels: Any) -> tuple[()]:
        return ()


def test_the_bounds_of_an_entry_hold_with_layout_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.layout._asset", lambda name, config: tmp_path)
    monkeypatch.setattr("models.layout.picodet.LayoutDetector", Nothing)
    engine = recognizer(tmp_path, layout="layout-cdla", max_pixels=100, max_queued=1)
    picture = encoded(Image.new("L", (11, 10)))
    (refused,) = engine.submit([OcrRequest((picture,))]).result(60)
    assert isinstance(refused, InvalidInputError)
    assert "the limit is 100 pixels" in refused.message
    engine.close()
