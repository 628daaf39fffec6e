"""Which kind of classifier a folder holds, by the architecture that its config.json names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from models.errors import ModelLoadError
from models.model_folder import ModelFolder

ClassifierKind = Literal["sequence", "token"]
ENDINGS: dict[str, ClassifierKind] = {
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
}


def kind_of(path: Path) -> ClassifierKind:
    """Of sequences where no architecture is named. ModelLoadError when another one is."""
    named = ModelFolder(path).read_object("config.json").get("architectures")
    if not named:
        return "sequence"
    for ending, kind in ENDINGS.items():
        if any(str(name).endswith(ending) for name in named):
            return kind
    raise ModelLoadError("config.json names no classifier of sequences or tokens (architectures)")
