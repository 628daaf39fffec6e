"""What follows pooling, as sentence-transformers defines it, in float32 always."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from models.encoders.embedding_recipe import ColbertLayer, DenseLayer, NormLayer, Step
from models.errors import ModelLoadError
from models.model_folder import ModelFolder


class Dense(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A linear layer and its activation, and what it adds its input through, if it does."""

    def __init__(self, folder: ModelFolder, layer: DenseLayer) -> None:
        super().__init__()
        inputs, outputs = layer.in_features, layer.out_features
        self.linear = nn.Linear(inputs, outputs, bias=layer.bias)
        self.activation: nn.Module = getattr(nn, layer.activation)()
        self.adds_input = layer.residual
        if layer.residual and inputs != outputs:
            self.residual = nn.Linear(inputs, outputs, bias=False)
        _load(self, folder, layer.folder)

    def forward(self, vectors: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.linear(vectors))
        if not self.adds_input:
            return activated
        return activated + (self.residual(vectors) if hasattr(self, "residual") else vectors)


class LayerNorm(nn.Module):  # type: ignore[misc]
    """Layer normalisation of the vector."""

    def __init__(self, folder: ModelFolder, layer: NormLayer) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(layer.dimension)
        _load(self, folder, layer.folder)

    def forward(self, vectors: Tensor) -> Tensor:
        normed: Tensor = self.norm(vectors)
        return normed


class ColbertProjection(nn.Module):  # type: ignore[misc]
    """ColBERT's linear layer without bias, from the weights of the transformer."""

    def __init__(self, folder: Path, layer: ColbertLayer) -> None:
        super().__init__()
        self.register_buffer("weight", _tensor(folder, layer.tensor))

    def forward(self, vectors: Tensor) -> Tensor:
        projected: Tensor = linear(vectors, self.weight)
        return projected


class Normalize(nn.Module):  # type: ignore[misc]
    """To unit length."""

    def forward(self, vectors: Tensor) -> Tensor:
        return normalize(vectors, dim=-1)


def build_steps(folder: ModelFolder, steps: Sequence[Step]) -> nn.Sequential:
    """[rows, dimensions before] to [rows, dimensions]. Raises ModelLoadError."""
    return nn.Sequential(*(_build(folder, step) for step in steps))


def _build(folder: ModelFolder, step: Step) -> nn.Module:
    if isinstance(step, DenseLayer):
        return Dense(folder, step)
    if isinstance(step, NormLayer):
        return LayerNorm(folder, step)
    if isinstance(step, ColbertLayer):
        return ColbertProjection(folder.path, step)
    return Normalize()


def _load(module: nn.Module, folder: ModelFolder, name: str) -> None:
    weights = folder.path / name / "model.safetensors"
    if not weights.is_file():
        raise ModelLoadError(f"the dense layer or norm {name} has no safetensors weights")
    try:
        state: dict[str, Any] = load_file(weights)
        module.load_state_dict(state)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelLoadError(f"the dense layer or norm {name} does not load") from error


def _tensor(folder: Path, name: str) -> Tensor:
    """One tensor of a folder's weights, in float32."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as weights:
                if name in weights.keys():  # noqa: SIM118  # not a mapping
                    return weights.get_tensor(name).float()
        except (OSError, SafetensorError) as error:
            raise ModelLoadError("the model's weights cannot be loaded") from error
    raise ModelLoadError(f"the folder has no tensor '{name}'")
