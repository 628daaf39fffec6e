"""The forward pass of a language model that answers with one token: the logits of some answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from models.encoders.packed_transformer import PackedBackbone, PaddedBackbone
from models.encoders.pooling import pool
from models.encoders.tokenization import TokenSequence
from models.encoders.torch_forward import Forward
from models.errors import ModelLoadError
from models.model_folder import ModelFolder
from models.transformers_loading import load_transformer


class AnswerPaths:
    """`ForwardPaths`: logits of the `answers` for the place after the last token, in float32.

    Only the rows of these answers are computed, not the whole vocabulary.
    """

    def __init__(self, folder: ModelFolder, answers: Sequence[int]) -> None:
        self._folder = folder
        self._answers = list(answers)

    def load(self) -> Any:
        return load_transformer(AutoModelForCausalLM, self._folder)

    def plain(self, model: Any) -> Forward:
        return self._answered(PaddedBackbone(model.base_model), model)

    def packed(self, model: Any) -> Forward:
        return self._answered(PackedBackbone(model.base_model), model)

    def trunk(self, model: Any) -> Sequence[nn.Module]:
        return (model.base_model,)

    def _answered(
        self, backbone: Callable[[Sequence[TokenSequence]], Tensor], model: Any
    ) -> Forward:
        head = model.get_output_embeddings()
        if head is None:
            raise ModelLoadError("the model has no language modelling head")
        rows = head.weight[self._answers].float()
        bias = head.bias[self._answers].float() if getattr(head, "bias", None) is not None else None
        cap = getattr(model.config, "final_logit_softcapping", None)
        scale = getattr(model.config, "logits_scaling", None)

        def forward(sequences: Sequence[TokenSequence]) -> Tensor:
            last = pool(backbone(sequences), [len(s) for s in sequences], ("lasttoken",))
            logits = nn.functional.linear(last, rows, bias)
            if scale is not None:
                logits = logits / scale
            return logits if cap is None else torch.tanh(logits / cap) * cap

        return forward
