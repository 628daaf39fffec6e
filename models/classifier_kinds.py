"""Which kind of classifier a folder holds, by the architecture that its config.json names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.classifier import TorchClassifier
from models.errors import ModelLoadError
from models.model_folder import open_transformers_folder
from models.token_classifier import TorchTokenClassifier


def torch_classifier(path: Path, **options: Any) -> TorchClassifier | TorchTokenClassifier:
    """The model of the folder. Raises ModelLoadError."""
    named = open_transformers_folder(path).read_object("config.json").get("architectures") or ()
    if any(str(name).endswith("ForTokenClassification") for name in named):
        return TorchTokenClassifier(path, **options)
    if any(str(name).endswith("ForSequenceClassification") for name in named):
        return TorchClassifier(path, **options)
    raise ModelLoadError("config.json names no classifier of sequences or tokens (architectures)")
