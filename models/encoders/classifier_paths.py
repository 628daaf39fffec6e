"""The forward passes of sequence and token classifiers, with the family's own unmodified head.

Packed: the trunk runs on the flat axis, its states go to the head in float32 (a logit in bfloat16
would have two significant digits).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification
from transformers.modeling_layers import GenericForSequenceClassification

from models.encoders.family_head import family_head, without_pooler
from models.encoders.length_split import split_by_length
from models.encoders.packed_transformer import PackedBackbone, padded_inputs
from models.encoders.pooling import pool
from models.encoders.tokenization import TokenSequence
from models.encoders.torch_forward import Forward
from models.errors import ModelLoadError
from models.model_folder import ModelFolder
from models.transformers_loading import load_transformer


class SequenceClassifierPaths:
    """`ForwardPaths` of models with one row of logits per sequence: [sequences, labels]."""

    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder
        if len(folder.read_objects("modules.json")) > 1:
            raise ModelLoadError("classifiers with further modules are not supported")

    def load(self) -> Any:
        return load_transformer(AutoModelForSequenceClassification, self._folder)

    def plain(self, model: Any) -> Forward:
        def forward(sequences: Sequence[TokenSequence]) -> Tensor:
            parts = [
                model(**padded_inputs(model, sequences[start:end])).logits
                for start, end in split_by_length([len(s) for s in sequences])
            ]
            return torch.cat(parts)

        return forward

    def packed(self, model: Any) -> Forward:
        backbone = PackedBackbone(without_pooler(model.base_model))
        head = family_head(model)
        mode = _read_position(model)

        def forward(sequences: Sequence[TokenSequence]) -> Tensor:
            states = pool(backbone(sequences), [len(s) for s in sequences], (mode,))
            return head(states.unsqueeze(1))

        return forward

    def trunk(self, model: Any) -> Sequence[nn.Module]:
        return _trunk(model)


class TokenClassifierPaths:
    """`ForwardPaths` of models with one row of logits per token: [tokens, labels]."""

    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder

    def load(self) -> Any:
        return load_transformer(AutoModelForTokenClassification, self._folder)

    def plain(self, model: Any) -> Forward:
        def forward(sequences: Sequence[TokenSequence]) -> Tensor:
            parts = []
            for start, end in split_by_length([len(s) for s in sequences]):
                inputs = padded_inputs(model, sequences[start:end])
                parts.append(model(**inputs).logits[inputs["attention_mask"].bool()])
            return torch.cat(parts)

        return forward

    def packed(self, model: Any) -> Forward:
        backbone = PackedBackbone(without_pooler(model.base_model))
        head = family_head(model)

        def forward(sequences: Sequence[TokenSequence]) -> Tensor:
            return head(backbone(sequences).float().unsqueeze(0))[0]

        return forward

    def trunk(self, model: Any) -> Sequence[nn.Module]:
        return _trunk(model)


def _trunk(model: Any) -> Sequence[nn.Module]:
    return [child for name, child in model.base_model.named_children() if name != "pooler"]


def _read_position(model: Any) -> str:
    """Which state the family's classification head reads."""
    if isinstance(model, GenericForSequenceClassification):  # decoders
        return "lasttoken"
    return "mean" if getattr(model.config, "classifier_pooling", None) == "mean" else "cls"
