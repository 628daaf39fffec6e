"""The forward pass of SPLADE: a language modelling head's logits to one weight per word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from models.encoders.embedding_recipe import SpladePooling
from models.encoders.family_head import family_head, without_pooler
from models.encoders.packed_transformer import PackedBackbone, PaddedBackbone
from models.encoders.pooling import reduced
from models.encoders.tokenization import TokenSequence
from models.encoders.torch_forward import Forward
from models.model_folder import ModelFolder
from models.transformers_loading import load_transformer

LOGIT_ROWS = 256
"""Tokens whose logits, a whole vocabulary each, are in memory at a time (or one sequence's)."""


class SpladePaths:
    """`ForwardPaths`: [sequences, vocabulary], with the head in float32."""

    def __init__(self, folder: ModelFolder, pooling: SpladePooling) -> None:
        self._folder = folder
        self._pooling = pooling

    def load(self) -> Any:
        model = load_transformer(AutoModelForMaskedLM, self._folder)
        head = model.get_output_embeddings()
        # its own copy: the trunk's embeddings may be in another precision
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        return model

    def plain(self, model: Any) -> Forward:
        return self._weighted(PaddedBackbone(without_pooler(model.base_model)), model)

    def packed(self, model: Any) -> Forward:
        return self._weighted(PackedBackbone(without_pooler(model.base_model)), model)

    def trunk(self, model: Any) -> Sequence[nn.Module]:
        return (model.base_model,)

    def _weighted(
        self, backbone: Callable[[Sequence[TokenSequence]], Tensor], model: Any
    ) -> Forward:
        head = family_head(model)

        def forward(sequences: Sequence[TokenSequence]) -> Tensor:
            states = backbone(sequences).float()
            return torch.cat(
                [
                    self._pooled(head(states[None, start:stop])[0], lengths)
                    for start, stop, lengths in _portions([len(s) for s in sequences])
                ]
            )

        return forward

    def _pooled(self, logits: Tensor, lengths: Sequence[int]) -> Tensor:
        weights = logits.relu().log1p()
        if self._pooling.twice:
            weights = weights.log1p()
        sizes = torch.tensor(lengths, device=logits.device)
        return reduced(weights, sizes, self._pooling.strategy)


def _portions(lengths: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Neighbouring sequences: their first token, the one after their last, their lengths."""
    start, portion = 0, list[int]()
    for length in lengths:
        if portion and sum(portion) + length > LOGIT_ROWS:
            yield start, start + sum(portion), portion
            start, portion = start + sum(portion), []
        portion.append(length)
    if portion:
        yield start, start + sum(portion), portion
