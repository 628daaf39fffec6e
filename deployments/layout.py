"""Recognisers that also find the layout of pages, where the catalogue asks for it."""

from __future__ import annotations

from pathlib import Path

from config.catalog import ASSET_CATALOG, ModelSpec, load_catalog
from config.settings import AppConfig
from deployments.engines import Resources, text_recognizer, weights_of
from models.base import TextRecognizer
from models.errors import ModelLoadError

LAYOUT, TABLES = "layout", "tables"
"""Of an OCR entry's `engine_options`: the assets with the models of layout and of tables."""


OPTIONS = (LAYOUT, TABLES)
BOUNDS = ("max_pixels", "max_queued")
"""Options that hold for the whole of a request, whichever of the engines gets it first."""


def page_recognizer(spec: ModelSpec, config: AppConfig, resources: Resources) -> TextRecognizer:
    """The engine of an OCR entry, with layout if the entry says so. Raises ModelLoadError."""
    options = {name: value for name, value in spec.engine_options.items() if name not in OPTIONS}
    plain = spec.model_copy(update={"engine_options": options})
    layout, tables = (spec.engine_options.get(name) for name in OPTIONS)
    if layout is None and tables is not None:
        raise ModelLoadError(f"'{spec.id}' has tables without layout, which finds them.")
    if layout is None:
        return text_recognizer(plain, config, resources)
    from models.layout.picodet import LayoutDetector
    from models.layout.recognizer import LayoutRecognizer
    from models.layout.slanet import TableReader

    threads = resources.n_threads
    detector = LayoutDetector(_asset(layout, config), threads)
    reader = None if tables is None else TableReader(_asset(tables, config), threads)
    lines = text_recognizer(plain, config, resources)
    bounds = {name: options[name] for name in BOUNDS if name in options}
    return LayoutRecognizer(lines, detector, reader, n_threads=threads, **bounds)


def _asset(name: object, config: AppConfig) -> Path:
    spec = load_catalog(ASSET_CATALOG).find(name) if isinstance(name, str) else None
    if spec is None or spec.task != "ocr":
        raise ModelLoadError(f"There is no layout model '{name}'.")
    return weights_of(spec, config)
