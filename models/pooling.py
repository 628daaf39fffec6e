"""From hidden states to vectors: pooling and what follows, as sentence-transformers defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.embedding_recipe import DenseLayer
from models.errors import ModelLoadError
from models.model_folder import ModelFolder
from models.tokenization import TokenSequence


def pool(hidden: Tensor, lengths: Sequence[int], modes: Sequence[str]) -> Tensor:
    """[tokens, hidden] of sequences one after another to float32 [sequences, hidden * modes]."""
    sizes = torch.tensor(lengths, device=hidden.device)
    ends = sizes.cumsum(0)
    parts = [_pooled(hidden, sizes, ends, mode) for mode in modes]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def pooled_parts(hidden: Tensor, sequences: Sequence[TokenSequence]) -> tuple[Tensor, list[int]]:
    """What `pool` takes: of sequences with spans only those, one after another."""
    if all(sequence.spans is None for sequence in sequences):
        return hidden, [len(sequence) for sequence in sequences]
    kept, lengths, first = [], [], 0
    for sequence in sequences:
        for start, stop in sequence.spans or ((0, len(sequence)),):
            kept.append(torch.arange(first + start, first + stop))
            lengths.append(stop - start)
        first += len(sequence)
    return hidden[torch.cat(kept).to(hidden.device)], lengths


def _pooled(hidden: Tensor, sizes: Tensor, ends: Tensor, mode: str) -> Tensor:
    if mode == "cls":
        return hidden[ends - sizes].float()
    if mode == "lasttoken":
        return hidden[ends - 1].float()
    states = hidden.float()
    if mode == "max":
        return torch.segment_reduce(states, "max", lengths=sizes)
    if mode == "mean":
        return torch.segment_reduce(states, "mean", lengths=sizes)
    if mode == "mean_sqrt_len_tokens":
        return torch.segment_reduce(states, "sum", lengths=sizes) / sizes.sqrt()[:, None]
    # weightedmean: the n-th token of a sequence weighs n
    ranks = torch.arange(1, len(states) + 1, device=hidden.device)
    ranks = ranks - (ends - sizes).repeat_interleave(sizes)
    weighted = torch.segment_reduce(states * ranks[:, None], "sum", lengths=sizes)
    return weighted / (sizes * (sizes + 1) / 2)[:, None]


class Dense(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A linear layer and its activation after pooling, in float32."""

    def __init__(self, folder: ModelFolder, layer: DenseLayer) -> None:
        super().__init__()
        self.linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
        self.activation: nn.Module = getattr(nn, layer.activation)()
        weights = folder.path / layer.folder / "model.safetensors"
        if not weights.is_file():
            raise ModelLoadError(f"the dense layer {layer.folder} has no safetensors weights")
        try:
            state: dict[str, Any] = load_file(weights)
            self.load_state_dict(state)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise ModelLoadError(f"the dense layer {layer.folder} does not load") from error

    def forward(self, vectors: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.linear(vectors))
        return activated


def build_steps(folder: ModelFolder, steps: Sequence[DenseLayer | str]) -> nn.Sequential:
    """The modules after pooling: [sequences, dim] to [sequences, dimensions]."""
    return nn.Sequential(
        *(Dense(folder, step) if isinstance(step, DenseLayer) else Normalize() for step in steps)
    )


class Normalize(nn.Module):  # type: ignore[misc]
    """To unit length."""

    def forward(self, vectors: Tensor) -> Tensor:
        return normalize(vectors, dim=-1)
