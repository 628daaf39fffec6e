"""How a bi-encoder's authors turn hidden states into a vector.

Read from the folder's own sentence-transformers files: modules.json, the pooling module's
config.json, sentence_bert_config.json and config_sentence_transformers.json. A folder without
modules.json gets what sentence-transformers would give it: last-token pooling for causal language
models, mean pooling for others, no normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from models.embedding_prompts import PromptBook
from models.errors import ModelLoadError
from models.model_folder import ModelFolder

# The order is that of the parts of the vector when a model uses several modes.
POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLING_MODES = frozenset(POOLING_KEYS.values())
ACTIVATIONS = frozenset({"Tanh", "Identity", "GELU", "ReLU", "SiLU"})
TRANSFORMER_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A linear layer after pooling; `folder` (relative) has its model.safetensors."""

    folder: str
    in_features: int
    out_features: int
    bias: bool
    activation: str


@dataclass(frozen=True, slots=True)
class EmbeddingRecipe:
    """`steps` follow pooling, in order: a DenseLayer, or "normalize".

    `normalizes`: a last "normalize", which is not among the steps.
    """

    transformer: str
    pooling: tuple[str, ...]
    steps: tuple[DenseLayer | str, ...]
    normalizes: bool
    max_tokens: int | None
    lowercase: bool
    prompts: PromptBook


def read_recipe(folder: ModelFolder) -> EmbeddingRecipe:
    """Read the recipe; ModelLoadError names the part that this engine does not have."""
    modules = folder.read_objects("modules.json")
    kinds = [_kind(module) for module in modules]
    transformer = _inside(modules[0]) if modules else "."
    if modules and kinds[:2] != ["Transformer", "Pooling"]:
        raise ModelLoadError("modules.json does not start with Transformer and Pooling")
    own = _first_json(folder, transformer)
    steps = [_step(folder, module) for module in modules[2:]]
    normalizes = steps[-1:] == ["normalize"]
    return EmbeddingRecipe(
        transformer=transformer,
        pooling=_pooling(folder, _inside(modules[1])) if modules else _default_pooling(folder),
        steps=tuple(steps[:-1] if normalizes else steps),
        normalizes=normalizes,
        max_tokens=_max_tokens(own.get("max_seq_length")),
        lowercase=bool(own.get("do_lower_case")),
        prompts=_prompts(folder),
    )


def _prompts(folder: ModelFolder) -> PromptBook:
    config = folder.read_object("config_sentence_transformers.json")
    prompts = {k: v for k, v in (config.get("prompts") or {}).items() if isinstance(v, str)}
    return PromptBook(prompts, config.get("default_prompt_name"))


def _max_tokens(value: object) -> int | None:
    if value is None or (isinstance(value, int) and value > 0):
        return value
    raise ModelLoadError("max_seq_length is not a positive number")


def _kind(module: Mapping[str, Any]) -> str:
    """The class name, when the class is sentence-transformers' own: others would be code to run."""
    package, _, name = str(module.get("type", "")).rpartition(".")
    if package.split(".")[0] != "sentence_transformers":
        raise ModelLoadError("modules.json asks for a module from elsewhere")
    return name


def _inside(module: Mapping[str, Any]) -> str:
    path = PurePosixPath(str(module.get("path", "")))
    if path.is_absolute() or ".." in path.parts:
        raise ModelLoadError("modules.json names a folder outside the model")
    return str(path)


def _first_json(folder: ModelFolder, transformer: str) -> dict[str, Any]:
    names = (str(PurePosixPath(transformer) / name) for name in TRANSFORMER_FILES)
    return next((folder.read_object(name) for name in names if folder.has(name)), {})


def _pooling(folder: ModelFolder, path: str) -> tuple[str, ...]:
    config = folder.read_object(f"{path}/config.json")
    if config.get("include_prompt") is False:
        raise ModelLoadError("pooling without the prompt's tokens is not supported")
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [name for key, name in POOLING_KEYS.items() if config.get(key)] or ["mean"]
    else:
        modes = [mode] if isinstance(mode, str) else list(mode)
    if not POOLING_MODES.issuperset(modes):
        raise ModelLoadError(f"unknown pooling mode in {path}/config.json")
    return tuple(modes)


def _default_pooling(folder: ModelFolder) -> tuple[str, ...]:
    config = folder.read_object("config.json")
    architecture = next(iter(config.get("architectures") or ()), "")
    causal = architecture.endswith("ForCausalLM") and config.get("is_causal", True)
    return ("lasttoken",) if causal else ("mean",)


def _step(folder: ModelFolder, module: Mapping[str, Any]) -> DenseLayer | str:
    kind = _kind(module)
    if kind == "Normalize":
        return "normalize"
    if kind != "Dense":
        raise ModelLoadError(f"the module {kind} of modules.json is not supported")
    path = _inside(module)
    config = folder.read_object(f"{path}/config.json")
    activation = str(config.get("activation_function") or "Identity").rpartition(".")[2]
    if activation not in ACTIVATIONS or config.get("use_residual"):
        raise ModelLoadError(f"the dense layer {path} uses an unsupported option")
    inputs, outputs = config.get("in_features"), config.get("out_features")
    if not isinstance(inputs, int) or not isinstance(outputs, int) or min(inputs, outputs) < 1:
        raise ModelLoadError(f"the dense layer {path} does not say its sizes")
    return DenseLayer(path, inputs, outputs, config.get("bias", True), activation)
