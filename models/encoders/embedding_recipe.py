"""How a bi-encoder's authors turn hidden states into a vector.

Read from the folder's own sentence-transformers files: modules.json, the modules' config.json,
sentence_bert_config.json and config_sentence_transformers.json. A folder without modules.json gets
what sentence-transformers would give it: last-token pooling for causal language models, mean
pooling for others, no normalisation; ColBERT's own folders, vectors of tokens.

Three chains of modules are known: a transformer, pooling and steps after it; a language modelling
head with SPLADE pooling; a transformer and steps on every token (late interaction).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from models.encoders.embedding_prompts import PromptBook
from models.errors import ModelLoadError
from models.model_folder import ModelFolder
from models.types.texts import EmbeddingKind

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
SPLADE = "splade"
TRANSFORMERS = frozenset({"Transformer", "MLMTransformer"})
TOKEN_STEPS = frozenset({"Dense", "Normalize", "MultiVectorMask"})
PASSED_OVER = frozenset({"Dropout", "MultiVectorMask"})
"""Without effect on what is computed here: training only, and which tokens a search would skip."""
COLBERT = "HF_ColBERT"
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
    """A linear layer; `folder` (relative) has its model.safetensors.

    `residual`: its input is added to its output, through a linear layer where they differ in size.
    """

    folder: str
    in_features: int
    out_features: int
    bias: bool
    activation: str
    residual: bool = False


@dataclass(frozen=True, slots=True)
class NormLayer:
    """Layer normalisation; `folder` (relative) has its model.safetensors."""

    folder: str
    dimension: int


@dataclass(frozen=True, slots=True)
class ColbertLayer:
    """The projection of the tokens that ColBERT keeps among the transformer's weights."""

    tensor: str = "linear.weight"


Step = DenseLayer | NormLayer | ColbertLayer | Literal["normalize"]


@dataclass(frozen=True, slots=True)
class SpladePooling:
    """`log1p(relu)` of the logits, once more where `twice`, then over tokens `strategy`."""

    strategy: Literal["max", "sum"] = "max"
    twice: bool = False


@dataclass(frozen=True, slots=True)
class EmbeddingRecipe:
    """`steps` follow pooling, in order; with `output` "tokens" they are for every token.

    `normalizes`: a last "normalize", which is not among the steps. `pooling` is ("splade",) for
    `output` "sparse".
    """

    transformer: str
    pooling: tuple[str, ...]
    steps: tuple[Step, ...]
    normalizes: bool
    max_tokens: int | None
    lowercase: bool
    prompts: PromptBook
    output: EmbeddingKind = "dense"
    splade: SpladePooling = SpladePooling()


def read_recipe(folder: ModelFolder) -> EmbeddingRecipe:
    """Read the recipe; ModelLoadError names the part that this engine does not have."""
    modules = folder.read_objects("modules.json")
    transformer = _inside(modules[0]) if modules else "."
    own = _first_json(folder, transformer)
    base = EmbeddingRecipe(
        transformer=transformer,
        pooling=("mean",),
        steps=(),
        normalizes=False,
        max_tokens=_max_tokens(own.get("max_seq_length")),
        lowercase=bool(own.get("do_lower_case")),
        prompts=_prompts(folder),
    )
    if modules:
        return _chained(folder, base, modules)
    if COLBERT in (folder.read_object("config.json").get("architectures") or ()):
        return replace(
            base, pooling=("cls",), steps=(ColbertLayer(),), normalizes=True, output="tokens"
        )
    return replace(base, pooling=_default_pooling(folder))


def with_options(
    recipe: EmbeddingRecipe,
    *,
    pooling: str | None = None,
    normalize: bool | None = None,
    prompts: Mapping[str, str] | None = None,
) -> EmbeddingRecipe:
    """What a catalogue entry says instead of the folder. Raises ModelLoadError."""
    if pooling == SPLADE:
        return replace(recipe, pooling=(SPLADE,), output="sparse", steps=(), normalizes=False)
    if pooling is not None and pooling not in POOLING_MODES:
        names = ", ".join(sorted(POOLING_MODES))
        raise ModelLoadError(f"there is no such pooling; there is {names}")
    return replace(
        recipe,
        pooling=recipe.pooling if pooling is None else (pooling,),
        normalizes=recipe.normalizes if normalize is None else normalize,
        prompts=recipe.prompts if prompts is None else PromptBook(dict(prompts)),
    )


def _chained(
    folder: ModelFolder, base: EmbeddingRecipe, modules: Sequence[Mapping[str, Any]]
) -> EmbeddingRecipe:
    """The recipe of the modules after the transformer."""
    first, *kinds = [_kind(module) for module in modules]
    if first not in TRANSFORMERS:
        raise ModelLoadError(f"the module {first} of modules.json is not supported")
    if kinds == ["SpladePooling"]:
        splade = _splade(folder.read_object(f"{_inside(modules[1])}/config.json"))
        return replace(base, pooling=(SPLADE,), output="sparse", splade=splade)
    if not kinds or kinds[0] == "SpladePooling":
        raise ModelLoadError("modules.json does not start with Transformer and Pooling")
    if kinds[0] == "Pooling":
        pooling, rest = _pooling(folder, _inside(modules[1])), modules[2:]
    elif TOKEN_STEPS.issuperset(kinds):
        pooling, rest = ("cls",), modules[1:]
    else:
        raise ModelLoadError(f"the module {kinds[0]} of modules.json is not supported")
    output: EmbeddingKind = "dense" if kinds[0] == "Pooling" else "tokens"
    steps = [_step(folder, module, output) for module in rest if _kind(module) not in PASSED_OVER]
    normalizes = steps[-1:] == ["normalize"]
    return replace(
        base,
        pooling=pooling,
        steps=tuple(steps[:-1] if normalizes else steps),
        normalizes=normalizes,
        output=output,
    )


def _splade(config: Mapping[str, Any]) -> SpladePooling:
    strategy = config.get("pooling_strategy", "max")
    activation = config.get("activation_function", "relu")
    if strategy not in ("max", "sum") or activation not in ("relu", "log1p_relu"):
        raise ModelLoadError("the SPLADE pooling uses an unsupported option")
    return SpladePooling(strategy, twice=activation == "log1p_relu")


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


def _step(folder: ModelFolder, module: Mapping[str, Any], output: EmbeddingKind) -> Step:
    kind, path = _kind(module), _inside(module)
    config = folder.read_object(f"{path}/config.json")
    reads = config.get("module_input_name", "sentence_embedding")
    if reads != ("token_embeddings" if output == "tokens" else "sentence_embedding"):
        raise ModelLoadError(f"the module {kind} of modules.json reads {reads}")
    if kind == "Normalize":
        return "normalize"
    if kind == "Dense":
        return _dense(path, config)
    if kind == "LayerNorm":
        return NormLayer(path, _size(path, config.get("dimension")))
    raise ModelLoadError(f"the module {kind} of modules.json is not supported")


def _dense(path: str, config: Mapping[str, Any]) -> DenseLayer:
    activation = str(config.get("activation_function") or "Identity").rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise ModelLoadError(f"the dense layer {path} uses an unsupported option")
    return DenseLayer(
        path,
        _size(path, config.get("in_features")),
        _size(path, config.get("out_features")),
        bool(config.get("bias", True)),
        activation,
        bool(config.get("use_residual")),
    )


def _size(path: str, value: object) -> int:
    if not isinstance(value, int) or value < 1:
        raise ModelLoadError(f"the dense layer or norm {path} does not say its sizes")
    return value
