"""A model's folder in the Hugging Face layout: what may be loaded from it, and its own settings.

Only JSON and safetensors are read. Pickles and folders that bring code of their own are refused.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ModelLoadError

CODE_FILES = ("config.json", "tokenizer_config.json", "processor_config.json")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A checked folder; every read is of a file inside it."""

    path: Path

    def read_object(self, name: str) -> dict[str, Any]:
        """The object in a JSON file; empty when there is no such file."""
        content = self._parse(name)
        if content is None:
            return {}
        if not isinstance(content, dict):
            raise ModelLoadError(f"{name} is not a JSON object")
        return content

    def read_objects(self, name: str) -> tuple[dict[str, Any], ...]:
        """The objects of a JSON array; empty when there is no such file."""
        content = self._parse(name)
        if content is None:
            return ()
        if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
            raise ModelLoadError(f"{name} is not a JSON array of objects")
        return tuple(content)

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def _parse(self, name: str) -> object:
        if not self.has(name):
            return None
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"{name} cannot be read as JSON") from error


def open_transformers_folder(path: Path, *, halves: Collection[str] = ()) -> ModelFolder:
    """Check a folder for transformers. ModelLoadError says what is missing or not allowed.

    Of encoder-decoder models only those whose type is among `halves` are taken.
    """
    folder = ModelFolder(path)
    config = folder.read_object("config.json")
    if not config:
        raise ModelLoadError("the model folder has no config.json")
    for name in CODE_FILES:
        if "auto_map" in folder.read_object(name):
            raise ModelLoadError(f"{name} asks for code of its own (auto_map), which is not run")
    if folder.has("adapter_config.json"):
        raise ModelLoadError("the folder is an adapter; merge it into its base model first")
    if config.get("is_encoder_decoder") and config.get("model_type") not in halves:
        name = (config.get("architectures") or ["the model"])[0]
        raise ModelLoadError(f"{name} is an encoder-decoder model, which is not supported here")
    if not any(path.glob("*.safetensors")):
        raise ModelLoadError("the folder has no safetensors weights; pickles are not loaded")
    return folder


def context_limit(config: object, limit: int, position_offset: int) -> int:
    """Tokens the model takes: at most `limit`, and what its position table allows.

    `position_offset` is the number of position rows that the family never uses for tokens.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return limit
    return min(limit, positions - position_offset)
