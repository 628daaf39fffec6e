"""Recognisers that also find the layout of pages, where the catalogue asks for it."""

from __future__ import annotations

from pathlib import Path

from config.catalog import ASSET_CATALOG, ModelSpec, load_catalog
from config.settings import AppConfig
from deployments.engines import Resources, text_recognizer, weights_of
from models.base import TextRecognizer
from models.errors import ModelLoadError

OPTION = "layout"
"""Of an OCR entry's `engine_options`: the asset with the layout model."""


def page_recognizer(spec: ModelSpec, config: AppConfig, resources: Resources) -> TextRecognizer:
    """The engine of an OCR entry, with layout if the entry says so. Raises ModelLoadError."""
    options = {name: value for name, value in spec.engine_options.items() if name != OPTION}
    plain = spec.model_copy(update={"engine_options": options})
    asset = spec.engine_options.get(OPTION)
    if asset is None:
        return text_recognizer(plain, config, resources)
    file = _asset(asset, config)
    from models.layout.picodet import LayoutDetector
    from models.layout.recognizer import LayoutRecognizer

    detector = LayoutDetector(file, resources.n_threads)
    lines = text_recognizer(plain, config, resources)
    return LayoutRecognizer(lines, detector, n_threads=resources.n_threads)


def _asset(name: object, config: AppConfig) -> Path:
    spec = load_catalog(ASSET_CATALOG).find(name) if isinstance(name, str) else None
    if spec is None or spec.task != "ocr":
        raise ModelLoadError(f"There is no layout model '{name}'.")
    return weights_of(spec, config)
