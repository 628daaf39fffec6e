"""Which document model a folder has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.document_models.donut import DonutModel
from models.document_models.layout_model import LayoutModel
from models.model_folder import ModelFolder
from models.ocr.image_to_text import FAMILY


def document_model(path: Path, **options: Any) -> DonutModel | LayoutModel:
    """Options are those of the class. Raises ModelLoadError."""
    config = ModelFolder(path).read_object("config.json")
    if config.get("model_type") == FAMILY:
        return DonutModel(path, **options)
    return LayoutModel(path, **options)
